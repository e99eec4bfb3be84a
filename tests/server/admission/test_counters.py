"""Virtual token counters, as the paper has them."""

from loraloom.server.admission.asked import Holder
from loraloom.server.admission.counters import Counters

A, B, C = Holder("a"), Holder("b"), Holder("c")


def test_a_token_of_an_answer_counts_twice_one_of_a_prompt() -> None:
    counters = Counters()
    counters.charge(A, 10, 3)
    assert counters.of(A) == 16
    counters.charge(A, -4, 0)
    assert counters.of(A) == 12
    assert counters.of(B) == 0


def test_a_prompt_is_charged_when_its_request_comes_in() -> None:
    counters = Counters()
    counters.release(A, 100)
    assert counters.of(A) == 100


def test_idling_earns_no_credit_against_those_that_wait() -> None:
    counters = Counters()
    counters.charge(A, 100, 0)
    counters.charge(B, 70, 0)
    counters.lift(C, [A, B])
    assert counters.of(C) == 70


def test_nor_does_it_where_nobody_waits() -> None:
    counters = Counters()
    counters.release(A, 50)
    counters.charge(A, 0, 25)
    counters.lift(C, [])
    assert counters.of(C) == 100


def test_what_was_served_is_never_forgotten() -> None:
    counters = Counters()
    counters.charge(A, 100, 0)
    counters.charge(B, 5, 0)
    counters.lift(A, [B])
    assert counters.of(A) == 100
