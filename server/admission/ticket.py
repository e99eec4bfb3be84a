"""One request in the queue and behind it: from when it asks to when it leaves."""

import asyncio
from dataclasses import dataclass, field

from loraloom.server.admission.asked import Asked, Holder
from loraloom.server.admission.counters import Counters


@dataclass(eq=False)
class Ticket:
    """A request's place in the order of arrival, and then its right to run.

    Attributes:
        number: counts requests in the order in which they came.
        asked: what it needs.
        holder: in whose line it waits.
        seats: that it takes.
        since: when it came.
        counters: what its tokens are charged to.
        released: when it was let in; None while it waits.
    """

    number: int
    asked: Asked
    holder: Holder
    seats: int
    since: float
    counters: Counters = field(repr=False)
    released: float | None = None
    _expected: int = 0
    _turn: asyncio.Future[bool] | None = field(default=None, repr=False)

    @property
    def adapter(self) -> str | None:
        """The adapter that it needs; None is the plain base model."""
        return self.asked.adapter

    def spend(self, prompt: int, output: int) -> None:
        """Charge tokens to the key as they are computed: those of the prompt, and those of the answers."""
        known = min(prompt, self._expected)
        self._expected -= known
        self.counters.charge(self.holder, prompt - known, output)

    def turn(self) -> asyncio.Future[bool]:
        """Ends when the request is let in (true), or when nobody is let in any more (false)."""
        assert self._turn is None, "one task waits for a request"
        self._turn = asyncio.get_running_loop().create_future()
        return self._turn

    def let_in(self, now: float) -> None:
        """It is this request's turn."""
        self.released = now
        self._expected = self.asked.work.prompt
        self.counters.release(self.holder, self._expected)
        self._wake(True)

    def turn_away(self) -> None:
        """It will never be."""
        self._wake(False)

    def settle(self) -> None:
        """Take back what was charged for tokens of the prompt that were never computed."""
        self.counters.charge(self.holder, -self._expected, 0)
        self._expected = 0

    def _wake(self, admitted: bool) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(admitted)
