"""Who asks for leases, and what leases are taken of."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from loraloom.adapters.errors import DamagedBlob
from loraloom.server.gate.leases import Leases
from tests.server.fakes import FakeEngine


class Blobs:
    """Directories that count who uses them."""

    def __init__(self) -> None:
        self.acquired: Counter[str] = Counter()
        self.damaged: set[str] = set()

    def acquire(self, digest: str) -> Path:
        if digest in self.damaged:
            raise DamagedBlob(digest, "its bytes have changed")
        self.acquired[digest] += 1
        return Path("/blobs") / digest

    def release(self, digest: str) -> None:
        assert self.acquired[digest] > 0, f"{digest} is released once too often"
        self.acquired[digest] -= 1

    def in_use(self) -> set[str]:
        return set(+self.acquired)


class InlineExecutor(ThreadPoolExecutor):
    """Runs at once what is meant for a thread, so that a schedule depends on its seed alone."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Request:
    """A request that holds an adapter until it is told to end."""

    def __init__(self, leases: Leases, engine: FakeEngine, name: str) -> None:
        self.entered = False
        self.folder: Path | None = None
        self._end = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(leases, engine, name))

    async def _run(self, leases: Leases, engine: FakeEngine, name: str) -> None:
        async with leases.hold(name, digest_of(name)) as self.folder:
            self.entered = True
            with engine.using(name):
                await self._end.wait()

    async def end(self) -> None:
        self._end.set()
        await self.task
        await settled()

    async def leave(self) -> None:
        """As when the client leaves."""
        self.task.cancel()
        await asyncio.wait([self.task])
        await settled()


def digest_of(name: str) -> str:
    return name[0] * 64


async def settled() -> None:
    """Let everything run that can run without new events."""
    for _ in range(50):
        await asyncio.sleep(0)
