"""What a request has this server do that takes long: a few at a time, and not where short work is done."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

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
            waiting: how many more may wait.
        """
        self._most = threads + waiting
        self._taken = 0
        self._threads = ThreadPoolExecutor(threads, "loraloom-work")

    async def do(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `work` returns or raises; once begun it is waited for, whoever leaves.

        Raises:
            OfflineBusy: too much waits already.
        """
        if self._taken >= self._most:
            raise OfflineBusy("other adapters are being published: try again later")
        self._taken += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(
            self._threads, partial(work, *arguments, **named)
        )
        future.add_done_callback(self._done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])  # what it works with must stay until then
            raise

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._taken -= 1
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report one that nobody waited for
