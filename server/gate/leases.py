"""Leases: the promise to the engine that an adapter in flight stays where it is.

The engine holds up to `capacity` adapters in main memory. Beyond that it would evict one by itself and, if a request
for it was still waiting, read its directory again in the middle of a step, where an error ends the engine. So nothing
is left to it: this object knows what the engine holds, evicts only what no request leases, and lets a new adapter in
only when there is a place. An adapter is read from disk in two situations only: when a request for it arrives and it is
not held, and there an error is an answer to that request; and ahead of requests, when a place is free or pinned.

A place belongs to no request: what has begun to load is loaded to the end, also when every client that waited for it
has left, because the engine cannot be stopped half-way and would hold an adapter that nobody knows of.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from loraloom.adapters.errors import StoreError
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.server.errors import AdapterNotLoaded, TooManyAdapters
from loraloom.server.gate.contents import Content
from loraloom.server.observe.events import UNHEARD, Events, loading

log = logging.getLogger("vllm.loraloom.leases")

T = TypeVar("T")


class Residents(Protocol):
    """The adapters that the engine holds in main memory."""

    async def load(self, name: str, folder: Path) -> None:
        """Read an adapter into memory from a verified directory; raises if the engine refuses it."""

    async def unload(self, name: str) -> None:
        """Free the engine's copy, if there is one."""


class Blobs(Protocol):
    """Where the bytes of adapters come from; every call may block."""

    def acquire(self, content: Content) -> Path:
        """A directory with the adapter's verified files, kept until `release`; `DamagedBlob` if there is none."""

    def release(self, content: Content) -> None:
        """The directory is no longer needed."""


@dataclass(eq=False)
class _Place:
    """One adapter's place in the engine's main memory.

    Attributes:
        folder: the directory, from when it is verified until it is given back.
        ready: ends with the directory when the engine has loaded it, or with the reason why not.
        clearing: takes the adapter out; whoever wants it again needs a new place.
        holders: requests in flight.
        retired: evict it as soon as nobody holds it.
    """

    content: Content
    folder: Path | None = None
    ready: asyncio.Task[Path] = field(init=False)
    clearing: asyncio.Task[None] | None = None
    holders: int = 0
    retired: bool = False

    @property
    def failed(self) -> bool:
        """Whether the adapter could not be loaded."""
        return self.ready.done() and (self.ready.cancelled() or self.ready.exception() is not None)

    @property
    def idle(self) -> bool:
        """Whether it can be cleared."""
        return not self.holders and self.clearing is None


class Leases:
    """Gives out places for adapters in flight, at most `capacity` distinct ones at a time."""

    def __init__(
        self,
        residents: Residents,
        blobs: Blobs,
        capacity: int,
        patience: float,
        events: Events = UNHEARD,
        threads: Executor | None = None,
    ) -> None:
        """
        Args:
            residents: what the engine holds.
            blobs: where directories come from.
            capacity: the engine's `max_cpu_loras`.
            patience: seconds a request may wait for a place, and again for its adapter.
            events: told of what happens to adapters.
            threads: where `blobs` may block; by default where asyncio lets things block.
        """
        self._threads = threads
        self._events = events
        self._residents = residents
        self._blobs = blobs
        self._capacity = capacity
        self._patience = patience
        self._places: OrderedDict[str, _Place] = OrderedDict()  # least recently used first
        self._pinned: frozenset[str] = frozenset()
        self._retired: set[str] = set()
        self._door = asyncio.Lock()  # its queue is the order in which new adapters are let in
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, name: str, content: Content) -> AsyncIterator[Path]:
        """Hold an adapter for the length of a request.

        Args:
            name: the canonical name.
            content: what the adapter consists of.

        Yields:
            The directory of its files, verified.

        Raises:
            TooManyAdapters: no place became free in time.
            DamagedBlob: its files are missing or changed.
            StoreError: its files cannot be read, or not in time.
            AdapterNotLoaded: the engine refuses it.
        """
        place = await self._enter(name, content)
        try:
            yield await self._loaded(name, place)
        finally:
            await self._leave(name, place)

    def resident(self, name: str) -> bool:
        """Whether the engine holds an adapter in memory."""
        place = self._places.get(name)
        return place is not None and place.folder is not None and place.ready.done() and not place.failed

    @property
    def residents(self) -> list[str]:
        """The adapters that the engine holds in memory, most recently used first."""
        return [name for name in reversed(self._places) if self.resident(name)]

    def held_alone(self, version: str) -> list[str]:
        """Under which names there are places for one version by itself: its own, and with proxy strengths."""
        return [name for name in list(self._places) if name.partition("~")[0] == version]

    def in_flight(self, name: str) -> int:
        """The number of requests that hold an adapter now."""
        place = self._places.get(name)
        return place.holders if place else 0

    @property
    def most_pinned(self) -> int:
        """How many adapters can be pinned: one place must stay for all others."""
        return self._capacity - 1

    @property
    def pins(self) -> int:
        """How many adapters are pinned."""
        return len(self._pinned)

    def pinned(self, name: str) -> bool:
        """Whether an adapter stays in memory when it is not in use."""
        return name in self._pinned

    def pin(self, names: Collection[str]) -> None:
        """Keep these adapters in memory, in place of those named before; whoever pins one holds it meanwhile."""
        assert len(set(names)) <= self.most_pinned, "a place stays for the others"
        self._pinned = frozenset(names)
        self._freed.set()

    async def fill(self, name: str, content: Content) -> None:
        """Load an adapter ahead of requests, if there is a free place that nobody waits for.

        It is the first to go when a place is needed. Raises as `hold` does.
        """
        if name in self._places or len(self._places) >= self._capacity or self._door.locked():
            return
        place = self._places[name] = self._new_place(name, content)
        self._places.move_to_end(name, last=False)
        await asyncio.wait([place.ready])
        if place.failed and place.idle:
            await self._evict(name, place)
        await place.ready

    async def retire(self, name: str) -> None:
        """Free the engine's copies of a removed adapter and of its mixtures, now or when their last requests end.

        Requests for them that are on their way still come in, and are the last.
        """
        self._retired.add(name)
        for other, place in [each for each in self._places.items() if name in _parts(each[0], each[1].content)]:
            place.retired = True
            if place.idle:
                await self._evict(other, place)

    async def _loaded(self, name: str, place: _Place) -> Path:
        """The directory, as soon as the engine has read it; a disk that hangs must not keep the request for ever."""
        if place.ready.done():
            return place.ready.result()
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(place.ready)
        except TimeoutError:
            raise StoreError(
                f"{name} could not be read within {self._patience:g} s, and is still being read: try again later"
            ) from None

    async def _enter(self, name: str, content: Content) -> _Place:
        place = self._join(name)
        if place is not None:
            return place
        try:
            async with asyncio.timeout(self._patience), self._door:
                return await self._let_in(name, content)
        except TimeoutError:
            raise TooManyAdapters(
                f"{self._capacity} other adapters were in use for {self._patience:g} s: try again later, or start the "
                "server with a larger --max-cpu-loras"
            ) from None

    def _join(self, name: str) -> _Place | None:
        """One more holder of a place that there is."""
        place = self._places.get(name)
        if place is None or place.clearing is not None or place.failed:
            return None
        place.holders += 1
        self._places.move_to_end(name)
        return place

    async def _let_in(self, name: str, content: Content) -> _Place:
        """A new place, as soon as there is one; the caller holds the door."""
        while (place := self._join(name)) is None:
            self._freed.clear()
            if name not in self._places and len(self._places) < self._capacity:
                self._places[name] = self._new_place(name, content)
            elif (idle := self._in_the_way(name)) is not None:
                await self._evict(*idle)
            else:
                await self._freed.wait()
        return place

    def _in_the_way(self, name: str) -> tuple[str, _Place] | None:
        """What can be cleared to let an adapter in: its own failed place, else the least recently used idle one."""
        names = [name] if name in self._places else [other for other in self._places if other not in self._pinned]
        return next(((other, self._places[other]) for other in names if self._places[other].idle), None)

    def _new_place(self, name: str, content: Content) -> _Place:
        place = _Place(content, retired=not self._retired.isdisjoint(_parts(name, content)))
        place.ready = asyncio.ensure_future(self._bring(name, place))
        place.ready.add_done_callback(_mark_seen)
        return place

    async def _bring(self, name: str, place: _Place) -> Path:
        """Verify an adapter's files, then let the engine load them."""
        with loading(self._events, "verify"):
            folder = place.folder = await self._blocking(self._blobs.acquire, place.content)
        with loading(self._events, "engine"):
            try:
                await self._residents.load(name, folder)
            except AdapterNotLoaded:
                await self._blocking(self._look_again, place.content)
                raise
        return folder

    def _look_again(self, content: Content) -> None:
        """Raise if files that were whole are not now: then it is no fault of the adapter that it cannot be loaded."""
        self._blobs.acquire(content)
        self._blobs.release(content)

    async def _blocking(self, call: Callable[[Content], T], content: Content) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, content)

    async def _leave(self, name: str, place: _Place) -> None:
        place.holders -= 1
        if place.holders:
            return
        if place.retired or place.failed:
            await self._evict(name, place)
        self._freed.set()

    async def _evict(self, name: str, place: _Place) -> None:
        """Take an adapter out of the engine and give its place away, whether or not the caller stays to see it."""
        place.clearing = asyncio.ensure_future(self._clear(name, place))
        await asyncio.shield(place.clearing)

    async def _clear(self, name: str, place: _Place) -> None:
        await asyncio.wait([place.ready])
        folder, place.folder = place.folder, None
        try:
            if folder is not None:
                await self._residents.unload(name)
                if not place.failed:
                    self._events.evicted()
                await self._blocking(self._blobs.release, place.content)
        except Exception:  # it is no fault of the request that happens to wait for this
            log.exception("%s could not be taken out of the engine", name)
        finally:
            del self._places[name]
            self._freed.set()


def _parts(name: str, content: Content) -> frozenset[str]:
    """An adapter's own name, and those of the versions that it is made of."""
    versions = content.ingredients if isinstance(content, Recipe) else ()
    return frozenset((name, *(each.version.canonical for each in versions)))


def _mark_seen(ready: asyncio.Task[Path]) -> None:
    """Look at a failure, so that asyncio does not report one that nobody waited for."""
    if not ready.cancelled():
        ready.exception()
