"""What a request has this server do that takes long: a few at a time, and not where short work is done."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from loraloom.server.access.access import ANONYMOUS
from loraloom.server.errors import OfflineBusy

P = ParamSpec("P")
T = TypeVar("T")


class Work:
    """Threads for publications: they fetch, convert and write, and wait for each other.

    In the threads that all routes share, forty of them would keep the server from saying that it is ready.
    """

    def __init__(self, threads: int = 4, waiting: int = 16) -> None:
        """
        Args:
            threads: how many are done at a time.
            waiting: how many more may wait. Of all these one key may have a quarter, where there are keys.
        """
        self._most = threads + waiting
        self._most_of_a_key = max(1, self._most // 4)
        self._taken: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(threads, "loraloom-work")

    async def do(self, key: str, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `work` returns or raises; once begun it is waited for, whoever leaves.

        Args:
            key: the name of whoever asks for it.
            work: may block.
            arguments, named: of it.

        Raises:
            OfflineBusy: too much waits already, of all or of this key.
        """
        self._check_room(key)
        self._taken[key] += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(
            self._threads, partial(work, *arguments, **named)
        )
        future.add_done_callback(partial(self._done, key))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])  # what it works with must stay until then
            raise

    def _check_room(self, key: str) -> None:
        if key != ANONYMOUS and self._taken[key] >= self._most_of_a_key:
            raise OfflineBusy(f"{self._taken[key]} adapters of the key {key!r} are being published: try again later")
        if self._taken.total() >= self._most:
            raise OfflineBusy("other adapters are being published: try again later")

    def _done(self, key: str, future: "asyncio.Future[Any]") -> None:
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report one that nobody waited for
