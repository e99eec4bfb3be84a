"""Mixtures that requests ask for: built at their first use, kept in a bounded folder, evicted by their last use."""

import asyncio
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from loraloom.adapters.errors import MixtureRankTooHigh
from loraloom.adapters.mixtures.mix import Limit, Outcome, mix
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.normal import FILES
from loraloom.adapters.store.disk import reporting
from loraloom.server.errors import RankTooHigh
from loraloom.server.scratch import Scratch

_REMEMBERED = 256


class Blobs(Protocol):
    """Where the ingredients' bytes come from; every call may block."""

    def acquire(self, digest: str) -> Path:
        """A directory with an adapter's verified normal form, kept until `release`."""

    def release(self, digest: str) -> None:
        """The directory is no longer needed."""


@dataclass(eq=False)
class _Entry:
    """One mixture.

    Attributes:
        users: how many acquired it and have not released it.
        building: held by whoever builds it; all others wait.
        outcome: what was made, once it is there.
        size: bytes of its files.
        unwanted: remove it when the last user releases it.
    """

    recipe: Recipe
    users: int = 0
    building: threading.Lock = field(default_factory=threading.Lock)
    outcome: Outcome | None = None
    size: int = 0
    unwanted: bool = False


class Mixtures:
    """A bounded cache of mixtures by their content. Thread-safe.

    Each mixture is built once, however many ask for it at a time. One that is acquired stays where it is; only what is
    acquired at one time, and the newest, may exceed the bound. Nothing is made durable.
    """

    def __init__(self, scratch: Scratch, blobs: Blobs, limit: Limit, cache_bytes: int, threads: int = 1) -> None:
        """
        Args:
            scratch: where they are kept.
            blobs: where the ingredients come from.
            limit: of the rank, and whether larger ones are truncated.
            cache_bytes: how much is kept.
            threads: how many mixtures are built at a time.
        """
        self._scratch = scratch
        self._folder = scratch.folder
        self._blobs = blobs
        self._limit = limit
        self._cache_bytes = cache_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._refused: OrderedDict[str, str] = OrderedDict()  # and why
        self._mutex = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, "loraloom-mixtures", _compute_alone)

    async def prepare(self, recipe: Recipe) -> Outcome:
        """See that a mixture is there, without keeping it there.

        Raises:
            RankTooHigh: its rank is over the limit.
            InvalidMixture: these adapters cannot be mixed in this way.
            DamagedBlob, StoreError: an ingredient cannot be read, or the mixture not be written.
        """
        ready = self._ready(recipe.key)
        if ready is not None:
            return ready
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._touch, recipe)

    def acquire(self, recipe: Recipe) -> Path:
        """The directory of a mixture, which stays there until `release`; raises as `prepare` does."""
        entry = self._enter(recipe)
        folder = self._folder / recipe.key
        try:
            with entry.building:
                if entry.outcome is None or not _complete(folder):
                    entry.outcome = self._build(recipe, folder)
                    entry.size = sum(file.stat().st_size for file in folder.iterdir())
        except BaseException:
            self.release(recipe)
            raise
        self._evict()
        return folder

    def release(self, recipe: Recipe) -> None:
        """Give up one `acquire`."""
        with self._mutex:
            entry = self._entries[recipe.key]
            entry.users -= 1
            if not entry.users and (entry.unwanted or entry.outcome is None):
                self._drop(entry)

    def forget(self, canonical: str) -> None:
        """Remove every mixture that a version is in, those in use as soon as they are not."""
        with self._mutex:
            for entry in [each for each in self._entries.values() if each.recipe.uses(canonical)]:
                entry.unwanted = True
                if not entry.users:
                    self._drop(entry)

    @property
    def kept_bytes(self) -> int:
        """What is on the disk now."""
        with self._mutex:
            return sum(entry.size for entry in self._entries.values())

    def _ready(self, key: str) -> Outcome | None:
        with self._mutex:
            if reason := self._refused.get(key):
                raise RankTooHigh(reason, param="model")
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry.outcome if entry else None

    def _touch(self, recipe: Recipe) -> Outcome:
        self.acquire(recipe)
        try:
            outcome = self._entries[recipe.key].outcome
        finally:
            self.release(recipe)
        assert outcome is not None, "what is acquired is built"
        return outcome

    def _enter(self, recipe: Recipe) -> _Entry:
        with self._mutex:
            entry = self._entries.setdefault(recipe.key, _Entry(recipe))
            entry.users += 1
            self._entries.move_to_end(recipe.key)
            return entry

    def _build(self, recipe: Recipe, folder: Path) -> Outcome:
        new = folder.with_suffix(".new")
        with reporting(f"the cache {self._folder}"), self._sources(recipe) as sources:
            for left_over in (new, folder):
                shutil.rmtree(left_over, ignore_errors=True)
            new.mkdir(parents=True)
            try:
                outcome = mix(recipe.method, sources, new, limit=self._limit)
                os.rename(new, folder)
            except MixtureRankTooHigh as error:
                raise self._refuse(recipe, error) from error
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return outcome

    @contextmanager
    def _sources(self, recipe: Recipe) -> Iterator[list[tuple[float, Path]]]:
        """The weight of each ingredient, and its directory."""
        with ExitStack() as stack:
            sources = []
            for each in recipe.ingredients:
                sources.append((each.weight, self._blobs.acquire(each.version.digest)))
                stack.callback(self._blobs.release, each.version.digest)
            yield sources

    def _refuse(self, recipe: Recipe, error: MixtureRankTooHigh) -> RankTooHigh:
        """The refusal in the server's words; finding it out takes long, so it is remembered."""
        refusal = rank_refusal(recipe, error.rank, error.limit)
        with self._mutex:
            self._refused[recipe.key] = str(refusal)
            while len(self._refused) > _REMEMBERED:
                self._refused.popitem(last=False)
        return refusal

    def _evict(self) -> None:
        """Remove what was used least recently and is not acquired, until the rest is within the bound."""
        with self._mutex:
            surplus = sum(entry.size for entry in self._entries.values()) - self._cache_bytes
            for entry in [each for each in self._entries.values() if not each.users]:
                if surplus <= 0:
                    return
                surplus -= entry.size
                self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        """Remove an entry that nobody uses; the caller holds the mutex."""
        del self._entries[entry.recipe.key]
        shutil.rmtree(self._folder / entry.recipe.key, ignore_errors=True)


def rank_refusal(recipe: Recipe, rank: int, limit: int) -> RankTooHigh:
    """What a client is told of a mixture whose rank is over the server's limit."""
    ranks = " + ".join(map(str, recipe.ranks))
    return RankTooHigh(
        f"the mixture has rank {rank} (its adapters: {ranks}); this server serves up to {limit}. Truncate it with the "
        f"method svd(rank={limit}), as in svd(rank={limit}):{recipe.canonical.rpartition(':')[2][:200]}, or start the "
        "server with a larger --max-lora-rank",
        param="model",
    )


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _compute_alone() -> None:
    """Leave the other processors to the engine."""
    import torch

    with suppress(RuntimeError):
        torch.set_num_threads(1)
