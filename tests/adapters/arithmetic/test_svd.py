from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.arithmetic.factors import Term
from loraloom.adapters.arithmetic.svd import svd
from tests.adapters.arithmetic.drawn import SINGLE, distance, factors, mixtures, optimum, seeded, size, update, updates

LOSS = 16 * SINGLE
"""Twice that of a truncation: what it starts from is rounded too."""


@seeded
@given(mixtures(), st.integers(1, 12))
def test_it_is_as_near_to_the_weighted_sum_as_its_rank_allows(terms: list[Term], rank: int) -> None:
    mixed, dense = svd(terms, rank=rank), sum(updates(terms))
    nearest = optimum(dense, rank)
    assert mixed.factors.rank <= rank
    assert abs(distance(mixed.factors, dense) - nearest) <= LOSS * size(terms)
    assert abs(mixed.discarded - nearest) <= LOSS * size(terms)


@seeded
@given(mixtures())
def test_all_ranks_together_lose_nothing(terms: list[Term]) -> None:
    rank = sum(term.factors.rank for term in terms)
    assert distance(svd(terms, rank=rank).factors, sum(updates(terms))) <= LOSS * size(terms)


@seeded
@given(mixtures(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(terms: list[Term], order: Random) -> None:
    rank = max(term.factors.rank for term in terms)
    shuffled = svd(order.sample(terms, len(terms)), rank=rank)
    dense = sum(updates(terms))
    assert abs(distance(shuffled.factors, dense) - optimum(dense, rank)) <= LOSS * size(terms)


@pytest.mark.parametrize(("weights", "rank"), [((1.0,), 3), ((2.5, -1.5), 3), ((1.0, -1.0), 1)])
def test_one_adapter_repeated_has_the_rank_of_what_remains(weights: tuple[float, ...], rank: int) -> None:
    given = factors(3, (12, 10), 0)
    mixed = svd([Term(weight, given) for weight in weights], rank=8).factors
    assert mixed.rank == rank
    assert distance(mixed, sum(weights) * update(given)) <= LOSS * size([Term(4.0, given)])
