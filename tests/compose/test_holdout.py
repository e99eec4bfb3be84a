"""What the search sees, and what it is judged by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.compose.errors import InvalidExamples
from loraloom.compose.examples import Example, Turn
from loraloom.compose.holdout import Holdout, hold_out


def examples(count: int, prefix: str = "") -> tuple[Example, ...]:
    return tuple(Example((Turn("user", f"{prefix}{number}"),), "a") for number in range(count))


def check_nothing_leaks(holdout: Holdout) -> None:
    for fold in holdout.folds:
        assert not set(fold.seen) & set(fold.held)
        assert list(fold.seen) == sorted(fold.seen)


@given(st.integers(2, 40))
def test_leave_one_out_holds_each_out_once(count: int) -> None:
    holdout = hold_out(examples(count), "leave-one-out", 0)
    check_nothing_leaks(holdout)
    assert holdout.folds[0].seen == tuple(range(count))
    assert [fold.held for fold in holdout.folds] == [(), *((each,) for each in range(count))]
    assert all(len(fold.seen) == count - 1 for fold in holdout.folds[1:])
    assert (holdout.seen, holdout.held) == (count, count)


@given(st.integers(4, 60), st.floats(0.2, 0.6), st.integers(0, 9))
def test_a_share_is_held_out_once_and_for_all(count: int, share: float, seed: int) -> None:
    holdout = hold_out(examples(count), share, seed)
    check_nothing_leaks(holdout)
    (fold,) = holdout.folds
    assert sorted((*fold.seen, *fold.held)) == list(range(count))
    assert len(fold.held) == round(share * count)
    assert hold_out(examples(count), share, seed) == holdout


def test_the_seed_decides_which() -> None:
    assert len({hold_out(examples(20), 0.5, seed).folds[0].held for seed in range(5)}) > 1


def test_auto_spares_none_of_a_few() -> None:
    assert hold_out(examples(9), "auto", 0).kind == "leave-one-out"
    assert hold_out(examples(10), "auto", 0).kind == "0.5 of the examples"


def test_examples_of_its_own() -> None:
    holdout = hold_out(examples(3), examples(2, "other "), 0)
    check_nothing_leaks(holdout)
    assert holdout.examples == (*examples(3), *examples(2, "other "))
    assert (holdout.folds[0].seen, holdout.folds[0].held) == ((0, 1, 2), (3, 4))


def test_what_was_learned_from_does_not_judge() -> None:
    with pytest.raises(InvalidExamples, match=r"example 2 is in the hold-out too \('1'\)"):
        hold_out(examples(3), (*examples(1, "other "), examples(2)[1]), 0)


@pytest.mark.parametrize("holdout", ["leave-one-out", 0.5, "auto"])
def test_what_is_asked_twice_would_leak(holdout: str | float) -> None:
    with pytest.raises(InvalidExamples, match="examples 2 and 4 ask the same"):
        hold_out((*examples(3), Example((Turn("user", "1 "),), "b"), *examples(3, "more ")), holdout, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_one_example_is_too_few(count: int) -> None:
    with pytest.raises(InvalidExamples, match="give 2 at the least"):
        hold_out(examples(count), "auto", 0)


@pytest.mark.parametrize(("count", "share"), [(3, 0.1), (3, 0.9), (2, 0.5)])
def test_a_share_that_leaves_too_little_is_refused(count: int, share: float) -> None:
    with pytest.raises(InvalidExamples, match="leaves . to learn from"):
        hold_out(examples(count), share, 0)


def test_many_examples_are_refused() -> None:
    with pytest.raises(InvalidExamples, match="1000 at the most"):
        hold_out(examples(1001), 0.5, 0)
    with pytest.raises(InvalidExamples, match="takes as many searches"):
        hold_out(examples(51), "leave-one-out", 0)
    with pytest.raises(InvalidExamples, match="10,001 held-out examples: give 10,000 at the most"):
        hold_out(examples(3), examples(10_001, "other "), 0)


def test_the_same_example_does_not_judge_twice() -> None:
    with pytest.raises(InvalidExamples, match="examples 1 and 3 ask the same"):
        hold_out(examples(3), (*examples(2, "other "), *examples(1, "Other ")), 0)
