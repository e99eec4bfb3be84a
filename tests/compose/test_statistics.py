import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.compose.statistics import MAX_EXACT, flip_p, interval

WHOLE = st.lists(st.integers(-20, 20), min_size=1, max_size=9)


def every_flip(differences: list[int]) -> float:
    """The p value by its definition."""
    sums = [sum(np.multiply(signs, differences)) for signs in itertools.product((1, -1), repeat=len(differences))]
    return float(np.mean(np.array(sums) >= sum(differences)))


@given(WHOLE)
def test_the_test_counts_all_flips(differences: list[int]) -> None:
    assert flip_p(np.array(differences, float)) == every_flip(differences)


@given(WHOLE, st.floats(1e-200, 1e200))
def test_the_test_knows_no_unit(differences: list[int], unit: float) -> None:
    scaled = np.array(differences, float) * unit
    assert flip_p(scaled) == pytest.approx(every_flip(differences), abs=1e-15)


@given(WHOLE)
def test_better_and_worse_are_not_both_proven(differences: list[int]) -> None:
    array = np.array(differences, float)
    assert flip_p(array) + flip_p(-array) >= 1


def test_what_is_equal_is_no_evidence() -> None:
    assert flip_p(np.zeros(7)) == 1
    assert flip_p(np.array([1.0, 0, 2, 0, 3])) == 1 / 8


def test_five_examples_are_the_fewest_that_can_tell() -> None:
    assert flip_p(np.ones(4)) > 0.05 > flip_p(np.ones(5)) == 1 / 32


def test_drawn_flips_agree_with_counted_ones() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.25, 1, MAX_EXACT)
    counted = flip_p(differences)
    drawn = flip_p(np.append(differences, 1e-9))  # one more than can be counted, and of no weight
    assert 0.01 < counted < 0.2
    assert drawn == pytest.approx(counted, abs=0.008)


def test_drawn_flips_are_never_impossible_and_always_the_same() -> None:
    ones = np.ones(MAX_EXACT + 20)
    assert 0 < flip_p(ones) == flip_p(ones) < 1e-4
    assert flip_p(-ones) == 1


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 30)), min_size=1, max_size=12))
def test_an_interval_holds_its_ratio_and_stays_within_the_examples(rows: list[tuple[float, int]]) -> None:
    weights = np.array([weight for _, weight in rows], float)
    values = np.array([rate for rate, _ in rows]) * weights
    low, high = interval(values, weights)
    rates, ratio, dust = values / weights, values.sum() / weights.sum(), 1e-9
    assert rates.min() - dust <= low <= ratio + dust
    assert ratio - dust <= high <= rates.max() + dust


def test_an_interval_counts_tokens_not_examples() -> None:
    low, high = interval(np.array([1000.0, 0.1, 0.1]), np.array([1000.0, 1.0, 1.0]))
    assert (low, high) == pytest.approx((0.1, 1))


def test_an_interval_is_the_same_every_time_and_another_with_another_seed() -> None:
    values, weights = np.random.default_rng(1).normal(size=30), np.ones(30)
    assert interval(values, weights) == interval(values, weights) != interval(values, weights, seed=1)


@pytest.mark.parametrize(("examples", "least"), [(5, 0.89), (8, 0.91), (30, 0.92)])
def test_intervals_cover_what_is_true(examples: int, least: float) -> None:
    """The plain percentile interval covers 83% with five examples; over 1000 jobs this one covers 92%, 93% and 95%."""
    rng, weights, covered, jobs = np.random.default_rng(2), np.ones(examples), 0, 300
    for _ in range(jobs):
        low, high = interval(rng.normal(size=examples), weights)
        covered += low <= 0 <= high
    assert least <= covered / jobs <= 0.98


def test_an_interval_narrows_as_examples_are_added() -> None:
    values = np.random.default_rng(3).normal(size=400)
    widths = [np.diff(interval(values[:count], np.ones(count)))[0] for count in (6, 25, 100, 400)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * 1.96 / 20, rel=0.1)
