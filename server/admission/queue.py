"""The queue at the edge: requests wait here and not in the engine, so that they can be let in by turns.

How long a request waits at most, where T is the time that the longest running request still takes: until it is its
key's turn and its own within the key (`Counters` bounds how much the others get until then); then another T for its
seats if it needs several; and if its adapter does not run, `hold` until that is due and T until another has drained,
and `hold` + T more for every round of places that drain and go to adapters which were due before it, or to keys that
had none: a quarter of the places in each. An adapter that made room is due again `hold` seconds later and no sooner,
and keeps its next place as long, so those that take turns all get on. Jobs come last: they wait for as long as others
keep coming. And nobody waits for longer than `patience`, see `Admission`.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from loraloom.server.admission.asked import Asked, Holder
from loraloom.server.admission.lines import Lines
from loraloom.server.admission.places import Places
from loraloom.server.admission.rules import Rules
from loraloom.server.admission.seats import Seats
from loraloom.server.admission.ticket import Ticket
from loraloom.server.errors import Draining, QueueFull

STOPPING = "the server is stopping and takes no more requests: send it again in a moment"


class Queue:
    """Decides who runs; it waits for nothing itself, and every call is one decision."""

    def __init__(self, rules: Rules, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            rules: what there is to share.
            clock: seconds of a clock that never goes back.
        """
        self.rules = rules
        self._clock = clock
        self._seats = Seats(rules.seats, rules.reserve)
        self._places = Places(rules.adapters, min(rules.reserve, 1), rules.hold)
        self._foreground = Lines(self._seats.held)
        self._background = Lines(self._seats.held)
        self._running: Counter[Holder] = Counter()
        self._numbers = 0
        self._closed = False

    def ask(self, asked: Asked) -> Ticket:
        """Get in line, and come in at once if nothing is in the way.

        Raises:
            QueueFull: as many wait as may.
            Draining: nobody is let in any more.
        """
        if self._closed:
            raise Draining(STOPPING)
        holder = asked.holder
        lines = self._lines_of(holder)
        self._numbers += 1
        seats = min(max(1, asked.work.sequences), self.rules.most_seats)
        ticket = Ticket(self._numbers, asked, holder, seats, self._clock(), lines.counters)
        lines.add(ticket)
        self._let_in_whom_it_can()
        if ticket.released is None:
            self._check_that_it_may_wait(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """A request has ended, or waits no more: everything that it held is for others."""
        if ticket.released is not None:
            self._take_back(ticket)
        elif not self._closed:
            self._step_out_of_line(ticket)
        self._let_in_whom_it_can()

    def close(self) -> None:
        """Turn away all that wait, and all that will come."""
        self._closed = True
        for lines in (self._foreground, self._background):
            for ticket in lines.clear():
                ticket.turn_away()

    def waiting(self) -> dict[str, int]:
        """How many requests of each key wait for their turn, where there are any."""
        return _by_key(self._foreground.lengths())

    def waiting_behind(self) -> dict[str, int]:
        """How many requests of each key wait behind all others, as those of its jobs."""
        return _by_key(self._background.lengths())

    def running(self) -> dict[str, int]:
        """How many requests of each key run, where there are any."""
        return _by_key(self._running)

    def _let_in_whom_it_can(self) -> None:
        now = self._clock()
        self._places.make_room(now)
        while self._seats.free and (ticket := self._next(now)) is not None:
            self._let_in(ticket, now)

    def _next(self, now: float) -> Ticket | None:
        """Who comes in now; jobs only if nobody else waits."""
        return self._next_of(self._foreground if self._foreground else self._background, now)

    def _next_of(self, lines: Lines, now: float) -> Ticket | None:
        """The first request that can run: of the key that was served least, the oldest whose adapter has room.

        If that one needs more seats than are free, they are gathered for it, and its key's later requests stay behind
        it; the keys after it get what it may not have anyway, which is the reserve.
        """
        gatherer: Holder | None = None
        for line in lines.in_turn():
            if not self._seats.fit(line.holder, 1, gatherer):
                continue
            for ticket in line.heads():
                adapter = ticket.adapter
                if adapter is not None and not self._places.has_room(adapter, line.holder):
                    self._places.pass_over(adapter, line.holder, now)
                elif self._seats.fit(line.holder, ticket.seats, gatherer):
                    return ticket
                else:
                    gatherer = gatherer or line.holder
                    break
        return None

    def _let_in(self, ticket: Ticket, now: float) -> None:
        self._lines_of(ticket.holder).remove(ticket)
        self._running[ticket.holder] += 1
        self._seats.take(ticket.holder, ticket.seats)
        if ticket.adapter is not None:
            self._places.take(ticket.adapter, ticket.holder, now)
        ticket.let_in(now)

    def _take_back(self, ticket: Ticket) -> None:
        ticket.settle()
        self._running[ticket.holder] -= 1
        if not self._running[ticket.holder]:
            del self._running[ticket.holder]
        self._seats.give_back(ticket.holder, ticket.seats)
        if ticket.adapter is not None:
            self._places.give_back(ticket.adapter, ticket.holder)

    def _step_out_of_line(self, ticket: Ticket) -> None:
        more = self._lines_of(ticket.holder).remove(ticket)
        if ticket.adapter is not None and not more:
            self._places.forget(ticket.adapter, ticket.holder)

    def _lines_of(self, holder: Holder) -> Lines:
        return self._background if holder.background else self._foreground

    def _check_that_it_may_wait(self, ticket: Ticket) -> None:
        lines, rules = self._lines_of(ticket.holder), self.rules
        if lines.length(ticket.holder) > rules.most_of_a_key:
            who, most = f"of key {ticket.holder.key!r} ", rules.most_of_a_key
        elif len(lines) > rules.most_waiting:
            who, most = "", rules.most_waiting
        else:
            return
        self.leave(ticket)
        raise QueueFull(f"{most} requests {who}wait already, as many as may: try again later")


def _by_key(counts: Mapping[Holder, int]) -> dict[str, int]:
    """Counts of holders, those of a key and of its jobs together."""
    totals: Counter[str] = Counter()
    for holder, number in counts.items():
        totals[holder.key] += number
    return dict(totals)
