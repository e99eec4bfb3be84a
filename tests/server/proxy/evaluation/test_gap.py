"""The share of the gap that is closed."""

import random
from collections.abc import Sequence

import pytest

from loraloom.server.proxy.evaluation.gap import MIN_GAP, Gain, Rights, closed, gained


def some(right: int, count: int = 100) -> Sequence[bool]:
    return [number < right for number in range(count)]


def test_a_gain_is_of_the_same_questions_and_of_the_mean_over_tasks() -> None:
    found = gained([(some(20), some(60)), (some(5, 10), some(5, 10))])
    assert found.value == pytest.approx(0.2)
    assert 0.1 < found.low < 0.2 < found.high < 0.3
    # Answers that differ to no question leave no doubt, however few are right.
    assert gained([(some(20), some(20))]) == Gain(0, 0, 0)


def test_of_one_task() -> None:
    found = closed([Rights(some(20), some(65), some(80))])
    assert (found.gap, found.share) == (pytest.approx(0.6), pytest.approx(0.75))
    assert found.low is not None
    assert found.high is not None
    assert 0.6 < found.low < 0.75 < found.high < 0.9


def test_of_several_tasks_it_is_of_their_means_whatever_their_sizes() -> None:
    found = closed([Rights(some(0), some(50), some(100)), Rights(some(5, 10), some(5, 10), some(10, 10))])
    assert (found.gap, found.share) == (pytest.approx(0.75), pytest.approx(0.25 / 0.75))


def test_it_may_be_more_than_all_and_less_than_nothing() -> None:
    assert closed([Rights(some(10), some(90), some(50))]).share == pytest.approx(2)
    assert closed([Rights(some(30), some(10), some(50))]).share == pytest.approx(-1)


@pytest.mark.parametrize("tuned", [10, 14, 0])
def test_without_a_gap_it_is_undefined(tuned: int) -> None:
    found = closed([Rights(some(10), some(60), some(tuned))])
    assert found.gap == pytest.approx((tuned - 10) / 100)
    assert found.gap < MIN_GAP
    assert (found.share, found.low, found.high) == (None, None, None)


def test_where_the_gap_may_be_chance_there_is_no_interval() -> None:
    found = closed([Rights([False] * 8 + [True, False], [True] * 10, [False] * 8 + [True, True])])
    assert found.share is not None
    assert found.low is None


def test_the_same_answers_give_the_same_interval() -> None:
    source = random.Random(1)
    rights = Rights(*([source.random() < chance for _ in range(60)] for chance in (0.1, 0.6, 0.8)))
    assert closed([rights]) == closed([rights])


def test_the_interval_covers_the_truth() -> None:
    source, hits = random.Random(2), 0
    for _ in range(60):
        drawn = [Rights(*([source.random() < chance for _ in range(80)] for chance in (0.1, 0.55, 0.85)))]
        found = closed(drawn)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.6 <= found.high
    assert hits >= 53
