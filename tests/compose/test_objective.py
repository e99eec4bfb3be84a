"""From the scores of rows to one number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.compose.objective import TIE, WORST, Question, Task
from loraloom.compose.result import Measured
from loraloom.compose.scoring import Row, RowScore

SHORT, LONG = Row((1,), (2, 3)), Row((1,), (2, 3, 4, 5, 6, 7))


def task(objective: str) -> Task:
    return Task(objective, (Question((SHORT,)), Question((LONG,))))


def scores(short: float, long: float, exact: tuple[bool, bool] = (True, False)) -> list[RowScore]:
    return [RowScore(short, 2, exact[0]), RowScore(long, 6, exact[1])]


def test_the_loss_is_a_mean_over_tokens_not_over_examples() -> None:
    assert task("loss").loss(scores(4, 4)) == task("loss").value(scores(4, 4)) == 1.0


def test_exact_match_counts_answers_and_breaks_ties_by_the_loss() -> None:
    exact = task("exact_match")
    assert exact.value(scores(4, 4)) == 0.5 + TIE
    assert exact.value(scores(4, 2)) < exact.value(scores(4, 4))
    assert exact.value(scores(0, 0, (False, False))) > exact.value(scores(99, 99))


def test_a_choice_is_right_if_no_other_is_as_likely() -> None:
    question = Question((SHORT, LONG, SHORT), right=1)
    choice = Task("choice", (question, question))
    right = [RowScore(3, 2, False), RowScore(2, 6, False), RowScore(3, 2, True)]
    wrong = [RowScore(3, 2, False), RowScore(2, 6, False), RowScore(2, 2, True)]
    assert choice.value([*right, *wrong]) == 0.5 + TIE * 4 / 12
    assert choice.loss([*right, *wrong]) == 4 / 12
    assert choice.measured([*right, *wrong]) == [Measured(1, 1), Measured(0, 1)]


@given(st.lists(st.floats(0, 50), min_size=2, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_what_is_scored_so_far_bounds_what_comes_out(nll: list[float], exact: list[bool]) -> None:
    rows = [RowScore(value, 2, flag) for value, flag in zip(nll, exact, strict=False)]
    for objective in ("loss", "exact_match"):
        whole = Task(objective, tuple(Question((SHORT,)) for _ in rows))
        values = [whole.value(rows[:count]) for count in range(len(rows) + 1)]
        assert values == sorted(values)


def test_half_a_choice_says_nothing_yet() -> None:
    choice = Task("choice", (Question((SHORT, LONG)),))
    assert choice.value([RowScore(9, 2, False)]) == 0


def test_measured_by_question() -> None:
    assert task("loss").measured(scores(4, 5)) == [Measured(4, 2), Measured(5, 6)]
    assert task("exact_match").measured(scores(4, 5)) == [Measured(1, 1), Measured(0, 1)]
    assert task("loss").exact(scores(4, 5)) == 0.5


@pytest.mark.parametrize("objective", ["loss", "exact_match"])
def test_what_overflows_is_the_worst_and_still_a_number(objective: str) -> None:
    value = task(objective).value(scores(math.inf, 1, (False, False)))
    assert math.isfinite(value)
    assert value >= task(objective).value(scores(1e5, 1e5, (False, False)))
    assert task("loss").loss(scores(math.inf, 1)) == WORST
    assert all(math.isfinite(each.value) for each in task(objective).measured(scores(math.inf, 1)))


def test_some_of_the_questions() -> None:
    assert task("loss").only([1]).rows == [LONG]
    parts = task("loss").each(scores(4, 5))
    assert [(part.rows, given) for part, given in parts] == [([SHORT], scores(4, 5)[:1]), ([LONG], scores(4, 5)[1:])]
