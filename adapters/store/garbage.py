"""What no live version needs, and its removal while others publish and serve.

A digest is garbage when no live version names it. Tags and rollbacks lead to live versions only, so what a removed
version named is garbage; its record stays, and so its number stays used.

Between the look at the records and the removal, another process may begin to rely on a digest again. So each is
reserved first (`Objects.removable`), which fails while a publisher or a server relies on it and lets none begin; then
the records are read once more. Death at any point leaves garbage of which a part is gone: the next collection removes
the rest, and a publication of the same content completes it (`Bundles.keep`).
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from loraloom.adapters.store.history import History
from loraloom.adapters.store.holds import REMOVAL_S
from loraloom.adapters.store.journal import Journal
from loraloom.adapters.store.locks import BY_DIGEST
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import Finding

_AT_ONCE = 64

Digests: TypeAlias = Mapping[str, frozenset[str]]
"""Digests by the folder that they are in: "blobs", "originals", "facts"."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Something that was removed, or would be.

    Attributes:
        path: where it was, relative to the store.
        size: its bytes.
    """

    path: str
    size: int


def find_garbage(objects: Objects) -> list[Finding]:
    """What no live version needs: left-over stages and unused files. They take space and do no harm."""
    stages = (
        Finding("garbage", f"stage/{name}", "left by a killed writer, or in use") for name in objects.list("stage")
    )
    present, named = _present(objects), _named(Journal(objects))
    unused = (
        Finding("garbage", f"{kind}/{digest}", "no live version needs it, or it is being published")
        for kind in BY_DIGEST
        for digest in sorted(present[kind] - named[kind])
    )
    return [*stages, *unused]


def collect(objects: Objects, *, dry_run: bool = False) -> Iterator[Collected]:
    """Remove the garbage on which nobody relies, a part at each step.

    Args:
        dry_run: only tell what would be removed.

    Raises:
        StoreError: it cannot be written, or a record is damaged, so that what it names is unknown.
    """
    journal = Journal(objects)
    suspects = _suspects(objects, _named(journal))
    for path in objects.left_over():
        yield _remove(objects, path, dry_run)
    for first in range(0, len(suspects), _AT_ONCE):
        yield from _collect_some(journal, suspects[first : first + _AT_ONCE], dry_run)


def _collect_some(journal: Journal, suspects: list[str], dry_run: bool) -> Iterator[Collected]:
    objects, end = journal.objects, time.monotonic() + REMOVAL_S / 2
    with objects.removable(suspects) as free:
        present, named = _present(objects), _named(journal)
        for kind, digest in ((kind, digest) for digest in sorted(free) for kind in BY_DIGEST):
            if digest in present[kind] - named[kind] and time.monotonic() < end:
                yield _remove(objects, f"{kind}/{digest}", dry_run)


def _remove(objects: Objects, path: str, dry_run: bool) -> Collected:
    collected = Collected(path, objects.size(path))
    if not dry_run:
        objects.remove(path)
    return collected


def _suspects(objects: Objects, named: Digests) -> list[str]:
    """The digests that look like garbage; also those of which only the lock is left."""
    present = _present(objects)
    unused = {digest for kind in BY_DIGEST for digest in present[kind] - named[kind]}
    return sorted(unused | set(objects.list("locks")).difference(*named.values()))


def _present(objects: Objects) -> Digests:
    return {kind: frozenset(objects.list(kind)) for kind in BY_DIGEST}


def _named(journal: Journal) -> Digests:
    """What the live versions name, now."""
    journal.objects.refresh("names")
    folders = [f"names/{name}" for name in journal.objects.list("names")]
    versions = [version for folder in folders for version in History(journal, folder).versions()]
    digests = frozenset(version.digest for version in versions)
    originals = frozenset(version.original for version in versions)
    return {"blobs": digests, "originals": originals, "facts": digests}
