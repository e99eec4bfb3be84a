from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.bench.estimate import CONFIDENCE, Estimate, median, paired_difference, paired_ratio


def test_an_interval_holds_the_median_of_the_samples() -> None:
    estimate = median([5.0, 1.0, 2.0, 9.0, 3.0])
    assert estimate.value == 3.0
    assert 1.0 <= estimate.low < 3.0 < estimate.high <= 9.0


def test_equal_samples_leave_no_doubt() -> None:
    estimate = median([4.0] * 7)
    assert (estimate.low, estimate.value, estimate.high) == (4.0, 4.0, 4.0)


def test_the_same_samples_give_the_same_interval() -> None:
    samples = np.random.default_rng(1).normal(size=9).tolist()
    assert median(samples) == median(samples)


def test_an_interval_holds_the_true_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    estimates = [median(random.normal(loc=10, size=25).tolist()) for _ in range(100)]
    hits = sum(estimate.low <= 10 <= estimate.high for estimate in estimates)
    assert hits / 100 == pytest.approx(CONFIDENCE, abs=0.04)


def test_a_slow_minute_that_hits_both_sides_of_a_pair_does_not_widen_the_ratio() -> None:
    theirs = [10.0, 11.0, 30.0, 12.0, 28.0, 10.5, 11.5]
    ours = [1.1 * time for time in theirs]
    ratio = paired_ratio(ours, theirs)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.1, 1.1, 1.1))
    alone = median(ours)
    assert alone.high / alone.low > 2


def test_a_difference_is_of_pairs() -> None:
    difference = paired_difference([12.0, 103.0, 14.0], [10.0, 100.0, 10.0])
    assert (difference.low, difference.value, difference.high) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize("paired", [paired_ratio, paired_difference])
def test_samples_without_a_partner_are_refused(
    paired: Callable[[Sequence[float], Sequence[float]], Estimate],
) -> None:
    with pytest.raises(ValueError, match="longer"):
        paired([1.0], [1.0, 2.0])


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        median([])
