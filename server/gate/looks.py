"""Looks into a store that may hang, as a network filesystem does whose server is away."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from loraloom.adapters.errors import StoreError

T = TypeVar("T")


class Looks:
    """Takes each look in a thread of its own pool, and waits for it for a while.

    Nothing can end a system call that hangs: its thread is lost until the call returns. So the event loop never makes
    one itself, no other work shares these threads, and when all of them hang, the next look is refused at once.
    """

    def __init__(self, place: str, patience: float = 5.0, threads: int = 8) -> None:
        """
        Args:
            place: what is looked at, such as "the store /srv/adapters".
            patience: seconds to wait for one look.
            threads: looks at a time.
        """
        self._place = place
        self._patience = patience
        self._most = threads
        self._hanging: set[Future[Any]] = set()
        self._threads = ThreadPoolExecutor(threads, "loraloom-looks")

    async def take(self, look: Callable[..., T], *arguments: object) -> T:
        """What `look` returns or raises.

        Raises:
            StoreError: it did not come to an end.
        """
        if len(self._hanging) >= self._most:
            raise self._no_answer()
        job = self._threads.submit(look, *arguments)
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(asyncio.wrap_future(job))
        except TimeoutError:
            if not job.cancel():
                self._hanging.add(job)
                job.add_done_callback(self._hanging.discard)
            raise self._no_answer() from None
        except asyncio.CancelledError:
            job.cancel()
            raise

    def _no_answer(self) -> StoreError:
        return StoreError(
            f"{self._place} did not answer within {self._patience:g} s: see whether its filesystem is there, and try "
            "again"
        )
