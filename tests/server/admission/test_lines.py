"""Lines of requests that wait."""

from collections import Counter

import pytest

from loraloom.server.admission.asked import Asked, Holder
from loraloom.server.admission.lines import Line, Lines
from loraloom.server.admission.ticket import Ticket


class Arrivals:
    """Makes tickets in the order of arrival, for one set of lines."""

    def __init__(self) -> None:
        self.seats: Counter[Holder] = Counter()
        self.lines = Lines(lambda holder: self.seats[holder])
        self.number = 0

    def ticket(self, key: str = "k", adapter: str | None = None) -> Ticket:
        self.number += 1
        asked = Asked(key, adapter)
        return Ticket(self.number, asked, asked.holder, 1, 0.0, self.lines.counters)

    def arrive(self, key: str = "k", adapter: str | None = None) -> Ticket:
        ticket = self.ticket(key, adapter)
        self.lines.add(ticket)
        return ticket


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals()


def keys(lines: Lines) -> list[str]:
    return [line.holder.key for line in lines.in_turn()]


def test_of_each_adapter_the_oldest_request_is_seen_oldest_first(arrivals: Arrivals) -> None:
    line = Line(Holder("k"))
    tickets = [arrivals.ticket(adapter=adapter) for adapter in ("b@1", None, "b@1", "a@1", None)]
    for ticket in tickets:
        line.add(ticket)
    assert list(line.heads()) == [tickets[0], tickets[1], tickets[3]]
    line.remove(tickets[0])
    assert list(line.heads()) == [tickets[1], tickets[2], tickets[3]]
    assert len(line) == 4
    assert sorted(ticket.number for ticket in line.tickets()) == [2, 3, 4, 5]


def test_a_request_can_leave_from_the_middle(arrivals: Arrivals) -> None:
    line = Line(Holder("k"))
    tickets = [arrivals.ticket() for _ in range(3)]
    for ticket in tickets:
        line.add(ticket)
    line.remove(tickets[1])
    line.remove(tickets[0])
    assert list(line.heads()) == [tickets[2]]


def test_who_was_served_least_comes_first_and_between_equals_who_has_fewer_seats(arrivals: Arrivals) -> None:
    for key in "abc":
        arrivals.arrive(key)
    arrivals.lines.counters.charge(Holder("a"), 10, 0)
    arrivals.seats[Holder("b")] = 2
    assert keys(arrivals.lines) == ["c", "b", "a"]


def test_a_key_that_begins_to_wait_has_no_credit(arrivals: Arrivals) -> None:
    arrivals.arrive("a")
    arrivals.lines.counters.charge(Holder("a"), 10, 0)
    arrivals.arrive("b")
    assert arrivals.lines.counters.of(Holder("b")) == 10
    arrivals.lines.counters.charge(Holder("a"), 10, 0)
    arrivals.arrive("b")
    assert arrivals.lines.counters.of(Holder("b")) == 10


def test_lines_are_counted_and_end_with_their_last_request(arrivals: Arrivals) -> None:
    first, second, third = arrivals.arrive("a", "x@1"), arrivals.arrive("a", "x@1"), arrivals.arrive("b")
    assert (len(arrivals.lines), arrivals.lines.length(Holder("a")), arrivals.lines.length(Holder("z"))) == (3, 2, 0)
    assert arrivals.lines.remove(first)
    assert not arrivals.lines.remove(second)
    assert arrivals.lines.lengths() == {Holder("b"): 1}
    assert arrivals.lines.clear() == [third]
    assert (len(arrivals.lines), keys(arrivals.lines)) == (0, [])
