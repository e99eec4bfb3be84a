from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.arithmetic.factors import Term
from loraloom.adapters.arithmetic.ties import elected, ties, trimmed
from tests.adapters.arithmetic.drawn import SINGLE, distance, factors, mixtures, optimum, seeded, size, update, updates

LOSS = 8 * SINGLE
"""As for truncation."""
DENSITIES = st.sampled_from([0.001, 0.2, 0.5, 0.9, 1.0])
WHOLE = 24
"""A rank at which no shape that is drawn loses anything."""


def reference(dense: list[np.ndarray], density: float) -> np.ndarray:
    """Algorithm 1 of the paper, number by number."""
    kept = []
    for each in dense:
        count = max(1, round(density * each.size))
        smallest = sorted(abs(each).ravel(), reverse=True)[count - 1]
        kept.append(np.where(abs(each) >= smallest, each, 0))
    merged = np.zeros_like(dense[0])
    for place in np.ndindex(merged.shape):
        numbers = [each[place] for each in kept]
        sign = np.sign(sum(numbers))
        agreeing = [number for number in numbers if number and np.sign(number) == sign]
        merged[place] = np.mean(agreeing) if agreeing else 0
    return merged


@seeded
@given(mixtures(), DENSITIES)
def test_it_is_the_papers_algorithm(terms: list[Term], density: float) -> None:
    mixed = ties(terms, density=density, rank=WHOLE).factors
    assert distance(mixed, reference(updates(terms), density)) <= LOSS * size(terms)


@seeded
@given(mixtures(), DENSITIES)
def test_it_is_cut_to_the_largest_rank_of_the_terms(terms: list[Term], density: float) -> None:
    rank = max(term.factors.rank for term in terms)
    mixed, whole = ties(terms, density=density), reference(updates(terms), density)
    nearest = optimum(whole, rank)
    assert mixed.factors.rank <= rank
    assert abs(mixed.discarded - nearest) <= LOSS * size(terms)
    assert abs(distance(mixed.factors, whole) - nearest) <= LOSS * size(terms)


@seeded
@given(mixtures(weights=st.just(1.0)), st.sampled_from([0.25, 1.5]))
def test_one_weight_for_all_is_the_papers_lambda(terms: list[Term], weight: float) -> None:
    unweighted = reference(updates(terms), 0.5)
    weighted = [Term(weight, term.factors) for term in terms]
    assert distance(ties(weighted, density=0.5, rank=WHOLE).factors, weight * unweighted) <= LOSS * size(weighted)


def test_the_same_adapter_twice_is_that_adapter_and_not_double() -> None:
    given = factors(3, (8, 6), 0)
    mixed = ties([Term(1.0, given)] * 2, density=1.0).factors
    assert distance(mixed, update(given)) <= LOSS * size([Term(1.0, given)])


def test_an_adapter_and_its_negative_leave_nothing() -> None:
    given = factors(3, (8, 6), 0)
    assert not update(ties([Term(0.7, given), Term(-0.7, given)], density=0.5).factors).any()


@seeded
@given(mixtures(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(terms: list[Term], order: Random) -> None:
    shuffled = order.sample(terms, len(terms))
    mixed = ties(shuffled, density=0.5, rank=WHOLE).factors
    assert distance(mixed, update(ties(terms, density=0.5, rank=WHOLE).factors)) <= LOSS * size(terms)


@pytest.mark.parametrize(("density", "count"), [(1.0, 20), (0.5, 10), (0.1, 2), (0.001, 1)])
def test_the_largest_stay(density: float, count: int) -> None:
    numbers = torch.arange(1.0, 21.0, dtype=torch.float64).mul(-1).reshape(4, 5)
    stay = trimmed(numbers, density)
    assert stay.count_nonzero() == count
    assert torch.equal(stay.flatten()[-count:], numbers.flatten()[-count:])


def test_a_sign_is_elected_by_size_and_zeros_do_not_vote() -> None:
    rows = [[3.0, -1.0, 2.0, 0.0, 5.0], [-1.0, -3.0, 4.0, 0.0, -5.0], [-1.0, 0.0, 0.0, 0.0, 0.0]]
    assert elected(torch.tensor(row) for row in rows).tolist() == [3.0, -2.0, 3.0, 0.0, 0.0]
