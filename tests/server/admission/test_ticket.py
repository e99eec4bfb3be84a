"""One request's ticket."""

from loraloom.server.admission.asked import Asked
from loraloom.server.admission.counters import Counters
from loraloom.server.admission.estimate import Estimate
from loraloom.server.admission.ticket import Ticket

ASKED = Asked("k", "a@1", Estimate(1, prompt=100, output=50))


def ticket() -> Ticket:
    return Ticket(1, ASKED, ASKED.holder, 1, since=10.0, counters=Counters())


def test_it_knows_when_it_was_let_in() -> None:
    one = ticket()
    assert one.released is None
    one.let_in(12.5)
    assert one.released == 12.5


def test_what_is_computed_of_a_prompt_replaces_the_estimate() -> None:
    one = ticket()
    one.let_in(10.0)
    assert one.counters.of(one.holder) == 100
    one.spend(60, 0)
    assert one.counters.of(one.holder) == 100
    one.spend(60, 1)
    assert one.counters.of(one.holder) == 122
    one.settle()
    assert one.counters.of(one.holder) == 122


def test_what_was_never_computed_is_taken_back() -> None:
    one = ticket()
    one.let_in(10.0)
    one.spend(30, 2)
    one.settle()
    one.settle()
    assert one.counters.of(one.holder) == 34


async def test_whoever_waits_is_told_once() -> None:
    admitted, refused = ticket(), ticket()
    turns = [each.turn() for each in (admitted, refused)]
    assert not any(turn.done() for turn in turns)
    admitted.let_in(11.0)
    admitted.turn_away()
    refused.turn_away()
    assert [turn.result() for turn in turns] == [True, False]


async def test_whoever_has_left_is_not_told() -> None:
    gone = ticket()
    gone.turn().cancel()
    gone.let_in(11.0)
    assert gone.released == 11.0
