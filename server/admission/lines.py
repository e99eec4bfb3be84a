"""Lines: the requests that wait, one line for each key."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from loraloom.server.admission.asked import Holder
from loraloom.server.admission.counters import Counters
from loraloom.server.admission.ticket import Ticket


class Line:
    """The waiting requests of one holder, in lanes: one for each adapter that they need."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self._lanes: dict[str | None, OrderedDict[int, Ticket]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def heads(self) -> Iterable[Ticket]:
        """The oldest request of each lane, oldest first."""
        heads = [next(iter(lane.values())) for lane in self._lanes.values()]
        return heads if len(heads) == 1 else sorted(heads, key=_number)

    def tickets(self) -> list[Ticket]:
        """All of them."""
        return [ticket for lane in self._lanes.values() for ticket in lane.values()]

    def wants(self, adapter: str | None) -> bool:
        """Whether a request for an adapter waits here."""
        return adapter in self._lanes

    def add(self, ticket: Ticket) -> None:
        """One more, behind all others."""
        self._lanes.setdefault(ticket.adapter, OrderedDict())[ticket.number] = ticket
        self._length += 1

    def remove(self, ticket: Ticket) -> None:
        """One less."""
        lane = self._lanes[ticket.adapter]
        del lane[ticket.number]
        self._length -= 1
        if not lane:
            del self._lanes[ticket.adapter]


class Lines:
    """The lines of all holders of one kind: those of jobs, or those of everybody else."""

    def __init__(self, seats: Callable[[Holder], int]) -> None:
        """
        Args:
            seats: how many seats a holder has.
        """
        self.counters = Counters()
        self._seats = seats
        self._lines: dict[Holder, Line] = {}
        self._length = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return self._length

    def length(self, holder: Holder) -> int:
        """How many requests of a holder wait."""
        return len(self._lines.get(holder, ()))

    def lengths(self) -> dict[Holder, int]:
        """How many requests wait in each line that there is."""
        return {holder: len(line) for holder, line in self._lines.items()}

    def in_turn(self) -> list[Line]:
        """The lines, by who has been served least; between equals, by who has fewer seats."""
        lines = list(self._lines.values())
        return lines if len(lines) == 1 else sorted(lines, key=self._rank)

    def add(self, ticket: Ticket) -> None:
        """One more waits."""
        line = self._lines.get(ticket.holder)
        if line is None:
            self.counters.lift(ticket.holder, self._lines)
            line = self._lines[ticket.holder] = Line(ticket.holder)
        line.add(ticket)
        self._length += 1

    def remove(self, ticket: Ticket) -> bool:
        """One waits no more.

        Returns:
            Whether others of its line still wait for the same adapter.
        """
        line = self._lines[ticket.holder]
        line.remove(ticket)
        self._length -= 1
        if not line:
            del self._lines[ticket.holder]
        return line.wants(ticket.adapter)

    def clear(self) -> list[Ticket]:
        """Nobody waits any more; those who did."""
        tickets = [ticket for line in self._lines.values() for ticket in line.tickets()]
        self._lines.clear()
        self._length = 0
        return tickets

    def _rank(self, line: Line) -> tuple[int, int]:
        return self.counters.of(line.holder), self._seats(line.holder)


def _number(ticket: Ticket) -> int:
    return ticket.number
