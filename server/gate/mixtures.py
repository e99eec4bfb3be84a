"""Mixtures that requests ask for: built at their first use, kept in a bounded folder, evicted by their last use."""

import asyncio
import os
import shutil
import threading
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.mixtures.mix import Outcome
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.normal import FILES
from loraloom.server.errors import MixturesBusy
from loraloom.server.gate.building import refusal

Build: TypeAlias = Callable[[Recipe, Path], Outcome]
"""Writes a mixture to a folder that shows up when it is complete; see `Builder.build`."""

_REMEMBERED = 1024


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

    Each mixture is built once, however many ask for it at a time. One that is acquired stays where it is, as do those
    that the engine holds; only these and the newest may exceed the bound. Nothing is made durable.
    """

    def __init__(self, folder: Path, build: Build, cache_bytes: int, patience: float, threads: int = 1) -> None:
        """
        Args:
            folder: a folder of this process alone.
            build: builds one.
            cache_bytes: how much is kept.
            patience: seconds that a request may wait for its mixture.
            threads: how many are built at a time.
        """
        self._folder = folder
        self._build = build
        self._cache_bytes = cache_bytes
        self._patience = patience
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._refused: OrderedDict[str, InvalidMixture] = OrderedDict()
        self._forgotten: set[str] = set()
        self._mutex = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, "loraloom-mixtures")

    @asynccontextmanager
    async def kept(
        self, recipe: Recipe, turn: AbstractAsyncContextManager[None] | None = None
    ) -> AsyncIterator[Outcome]:
        """A mixture that is there, and stays for the length of the block.

        Args:
            recipe: of the mixture.
            turn: had while it is built, if it has to be.

        Raises:
            RankTooHigh: its rank is over the limit.
            InvalidMixture: these adapters cannot be mixed in this way.
            MixturesBusy: so many others are being built that it was not in time.
            DamagedBlob, StoreError: an ingredient cannot be read, or the mixture not be written.
        """
        outcome = self._join(recipe)
        if outcome is None:
            async with turn or nullcontext():
                outcome = self._join(recipe) or await self._built(recipe)
        try:
            yield outcome
        finally:
            self.release(recipe)

    def acquire(self, recipe: Recipe) -> Path:
        """The directory of a mixture, which stays there until `release`; blocks, and raises as `kept` does."""
        entry = self._enter(recipe)
        folder = self._folder / recipe.key
        try:
            with entry.building:
                if entry.outcome is None or not _complete(folder):
                    self._check_refused(recipe)
                    entry.outcome = self._try(recipe, folder)
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
            unused = not entry.users and (entry.unwanted or entry.outcome is None)
            gone = [self._drop(entry)] if unused else []
        _remove(gone)

    def forget(self, canonical: str) -> None:
        """Remove every mixture that a removed version is in, those in use as soon as they are not; now and later."""
        with self._mutex:
            self._forgotten.add(canonical)
            affected = [each for each in self._entries.values() if each.recipe.uses(canonical)]
            for entry in affected:
                entry.unwanted = True
            gone = [self._drop(entry) for entry in affected if not entry.users]
        _remove(gone)

    @property
    def kept_bytes(self) -> int:
        """What is on the disk now."""
        with self._mutex:
            return sum(entry.size for entry in self._entries.values())

    def _join(self, recipe: Recipe) -> Outcome | None:
        """One more user of a mixture that is there."""
        with self._mutex:
            entry = self._entries.get(recipe.key)
            if entry is None or entry.outcome is None:
                return None
            entry.users += 1
            self._entries.move_to_end(recipe.key)
            return entry.outcome

    async def _built(self, recipe: Recipe) -> Outcome:
        """As `_join`, after it was built. A client that leaves, or has waited enough, ends its own waiting only."""
        self._check_refused(recipe)
        job = self._threads.submit(self.acquire, recipe)
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(asyncio.wrap_future(job))
        except BaseException as error:
            if not job.cancel():
                job.add_done_callback(partial(self._give_up, recipe))
            if isinstance(error, TimeoutError):
                raise MixturesBusy(
                    f"the mixture was not built within {self._patience:g} s: try again later, or publish it with POST "
                    "/v1/mixtures or `loraloom adapters mix`"
                ) from None
            raise
        with self._mutex:
            outcome = self._entries[recipe.key].outcome
        assert outcome is not None, "what is acquired is built"
        return outcome

    def _give_up(self, recipe: Recipe, job: Future[Path]) -> None:
        """Release what was acquired for somebody who is not there any more."""
        if not job.cancelled() and job.exception() is None:
            self.release(recipe)

    def _enter(self, recipe: Recipe) -> _Entry:
        with self._mutex:
            entry = self._entries.get(recipe.key)
            if entry is None:
                unwanted = not self._forgotten.isdisjoint(each.version.canonical for each in recipe.ingredients)
                entry = self._entries[recipe.key] = _Entry(recipe, unwanted=unwanted)
            entry.users += 1
            self._entries.move_to_end(recipe.key)
            return entry

    def _try(self, recipe: Recipe, folder: Path) -> Outcome:
        """Build it; that it cannot be built is remembered, since finding it out takes long."""
        try:
            return self._build(recipe, folder)
        except InvalidMixture as error:
            with self._mutex:
                self._refused[recipe.key] = error
                while len(self._refused) > _REMEMBERED:
                    self._refused.popitem(last=False)
            raise refusal(recipe, error) from error

    def _check_refused(self, recipe: Recipe) -> None:
        with self._mutex:
            error = self._refused.get(recipe.key)
        if error is not None:
            raise refusal(recipe, error)

    def _evict(self) -> None:
        """Remove what was used least recently and is not acquired, until the rest is within the bound."""
        gone = []
        with self._mutex:
            surplus = sum(entry.size for entry in self._entries.values()) - self._cache_bytes
            for entry in [each for each in self._entries.values() if not each.users]:
                if surplus <= 0:
                    break
                surplus -= entry.size
                gone.append(self._drop(entry))
        _remove(gone)

    def _drop(self, entry: _Entry) -> Path:
        """Forget an entry that nobody uses; the caller holds the mutex, and removes the returned folder without it."""
        del self._entries[entry.recipe.key]
        folder, gone = self._folder / entry.recipe.key, self._folder / f"{uuid.uuid4().hex}.gone"
        try:
            os.rename(folder, gone)
        except OSError:
            return folder
        return gone


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
