"""Listings of a remote store, remembered for a moment, so that requests do not wait for one each."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Tree: TypeAlias = dict[str, list[str]]
"""The names in each folder, by the folder's path."""

_MOST = 2**15


@dataclass(frozen=True, slots=True)
class _Listing:
    began: float
    tree: Tree | None


class Listings:
    """Trees of folders, by the group to which a folder belongs: one request lists a group whole.

    Thread-safe. A listing that began before something was written in its group is never remembered afterwards.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._listings: dict[str, _Listing] = {}

    def get(self, group: str) -> Tree | None:
        """The tree, if it was listed within the lifetime."""
        listing = self._listings.get(group)
        if listing is None or time.monotonic() - listing.began > self._lifetime:
            return None
        return listing.tree

    def put(self, group: str, began: float, tree: Tree | None) -> None:
        """Remember what a request begun at `began`, by `time.monotonic`, brought; None: forget what came before."""
        with self._lock:
            known = self._listings.get(group)
            if known is not None and known.began >= began:
                return
            if len(self._listings) >= _MOST:
                self._listings.clear()
            self._listings[group] = _Listing(began, tree)

    def forget(self, group: str) -> None:
        self.put(group, time.monotonic(), None)


def group_of(path: str) -> str:
    """The first two parts of a path, such as `names/sql`: all that concerns one name, or one bundle."""
    return "/".join(path.split("/", 2)[:2])


def tree_of(paths: Iterable[str]) -> Tree:
    """The folders that the paths of objects imply, each with the names in it."""
    tree: dict[str, dict[str, None]] = defaultdict(dict)
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            tree["/".join(parts[:depth])][parts[depth]] = None
    return {folder: list(names) for folder, names in tree.items()}


def split_groups(tree: Tree) -> dict[str, Tree]:
    """The tree cut into its groups; a folder above all groups is a group of its own."""
    groups: dict[str, Tree] = defaultdict(dict)
    for folder, names in tree.items():
        groups[group_of(folder)][folder] = names
    return dict(groups)
