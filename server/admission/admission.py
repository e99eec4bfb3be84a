"""Admission: where a request waits at the edge until it is its turn."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from loraloom.server.admission.asked import Asked
from loraloom.server.admission.queue import STOPPING, Queue
from loraloom.server.admission.rules import Rules
from loraloom.server.admission.ticket import Ticket
from loraloom.server.errors import Disconnected, Draining, QueueFull

Leaving: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Returns when a client leaves."""


async def stays() -> None:
    """Of a client that never does."""
    await asyncio.Event().wait()


class Admission:
    """Lets requests in by turns; `Queue` decides whose it is."""

    def __init__(self, rules: Rules, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            rules: what there is to share, and how long a request may wait for it.
            clock: seconds of a clock that never goes back.
        """
        self.rules = rules
        self._queue = Queue(rules, clock)
        self._patience = rules.patience

    async def enter(self, asked: Asked, leaving: Leaving = stays) -> Ticket:
        """Wait until a request may run; what it needs is its own until `leave`.

        Where the waiting ends in any other way, it holds nothing.

        Args:
            asked: what it needs.
            leaving: returns when its client leaves, who then waits no more.

        Returns:
            The ticket, to be told of tokens as they are computed.

        Raises:
            QueueFull: too many wait, or this one has waited for as long as it may.
            Draining: the server is stopping.
            Disconnected: the client has left.
        """
        ticket = self._queue.ask(asked)
        if ticket.released is None:
            try:
                await self._turn(ticket, leaving)
            except BaseException:
                self._queue.leave(ticket)
                raise
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """It has ended: what it held is for others at once."""
        self._queue.leave(ticket)

    def close(self) -> None:
        """Turn away all that wait, and all that will come; what runs may end."""
        self._queue.close()

    def waiting(self) -> dict[str, int]:
        """How many requests of each key wait, where there are any; see `waiting_behind` for the others."""
        return self._queue.waiting()

    def waiting_behind(self) -> dict[str, int]:
        """How many requests of each key wait that come last, as those of its jobs."""
        return self._queue.waiting_behind()

    def running(self) -> dict[str, int]:
        """How many requests of each key run, where there are any."""
        return self._queue.running()

    async def _turn(self, ticket: Ticket, leaving: Leaving) -> None:
        turn, left = ticket.turn(), asyncio.ensure_future(leaving())
        both: set[asyncio.Future[Any]] = {turn, left}
        try:
            await asyncio.wait(both, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
        if turn.done():
            if not turn.result():
                raise Draining(STOPPING)
        elif left.done():
            raise Disconnected("the client has left the queue")
        else:
            raise QueueFull(f"the server was busy with other requests for {self._patience:g} s: try again later")
