"""So many at a time of one key: of what takes long and is done one after the other for everybody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from loraloom.server.errors import MixturesBusy


@dataclass
class _Line:
    """One key's.

    Attributes:
        free: how many more may begin.
        users: how many have begun or wait.
    """

    free: asyncio.Semaphore
    users: int = 0


@dataclass
class Turns:
    """Lets each key have a few at a time, so that whatever one asks for, another waits for a few of its at most.

    Attributes:
        at_a_time: how many one key may have.
        patience: seconds that one may wait for its turn.
    """

    at_a_time: int
    patience: float
    _lines: dict[str, _Line] = field(default_factory=dict)

    @asynccontextmanager
    async def taken(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the length of the block; raises `MixturesBusy`."""
        line = self._lines.setdefault(key, _Line(asyncio.Semaphore(self.at_a_time)))
        line.users += 1
        try:
            await self._wait(line)
            try:
                yield
            finally:
                line.free.release()
        finally:
            line.users -= 1
            if not line.users:
                del self._lines[key]

    async def _wait(self, line: _Line) -> None:
        try:
            async with asyncio.timeout(self.patience):
                await line.free.acquire()
        except TimeoutError:
            raise MixturesBusy(
                f"{line.users} mixtures of this key are being built or wait for it: try again later"
            ) from None
