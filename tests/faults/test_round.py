from dataclasses import replace

from tests.faults.recorder import GOOD
from tests.faults.round import Result, Round, summed, together


def a_round(seconds: float | None = 1.0, wrong: int = 0, lost: int = 0, unlike: str = "") -> Round:
    whole = None if seconds is None else seconds + 1
    return Round(seconds, whole, {GOOD: 2, "broken off": 1}, {GOOD: 1}, {}, wrong, lost, unlike)


def result(*rounds: Round) -> Result:
    return Result("kill", "it dies", "by hand", list(rounds))


def test_times_are_told_by_their_median_and_worst() -> None:
    told = result(a_round(1), a_round(9), a_round(2))
    assert (told.median, told.worst, told.worst_whole) == (2, 9, 10)
    assert told.asked == {GOOD: 6, "broken off": 3}
    assert told.good


def test_a_fault_that_was_never_made_has_no_times() -> None:
    assert (result().median, result().worst, result().worst_whole) == (None, None, None)


def test_any_harm_is_told() -> None:
    assert not result(a_round(wrong=1)).good
    assert not result(a_round(), a_round(unlike="it is answered with 200")).good
    assert not result(a_round(lost=2)).good
    helped = result(a_round(), a_round(None))
    assert (helped.helped, helped.worst, helped.good) == (1, 1, False)


def test_what_is_lost_is_not_counted_again_each_time_that_it_is_missing() -> None:
    assert result(a_round(lost=1), a_round(lost=1)).lost == 1


def test_two_campaigns_are_told_together() -> None:
    left_out = Result("clock", "the clock jumps", "a library", [a_round(1)], "there is no compiler")
    made, new = replace(left_out, rounds=[a_round(2)], skipped=""), replace(result(a_round(3)), name="new")
    told = together([result(a_round(5)), left_out], [new, made])
    assert told == [result(a_round(5)), replace(made, rounds=[a_round(1), a_round(2)]), new]
    assert together([result(a_round(5))], []) == [result(a_round(5))]


def test_counts_are_summed_the_most_frequent_first() -> None:
    assert list(summed([{"a": 1}, {"b": 3, "a": 1}]).items()) == [("b", 3), ("a", 2)]
