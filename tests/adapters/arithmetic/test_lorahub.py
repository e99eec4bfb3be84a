from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.arithmetic.factors import Factors, Term
from loraloom.adapters.arithmetic.lorahub import lorahub
from loraloom.adapters.errors import InvalidMixture
from tests.adapters.arithmetic.drawn import SEEDS, SINGLE, distance, double, factors, mixtures, seeded, update


def reference(terms: list[Term]) -> np.ndarray:
    b = sum(term.weight * double(term.factors.b) for term in terms)
    return b @ sum(term.weight * double(term.factors.a) for term in terms)


def size(terms: list[Term]) -> float:
    """What errors are relative to: the product of what the numbers of each factor add up to; never zero."""
    a = sum(abs(term.weight) * np.linalg.norm(double(term.factors.a)) for term in terms)
    return 1e-30 + a * sum(abs(term.weight) * np.linalg.norm(double(term.factors.b)) for term in terms)


@seeded
@given(mixtures(one_rank=True))
def test_it_is_the_product_of_both_weighted_sums(terms: list[Term]) -> None:
    mixed = lorahub(terms)
    assert distance(mixed.factors, reference(terms)) <= SINGLE * size(terms)
    assert mixed.factors.rank == terms[0].factors.rank
    assert mixed.factors.a.dtype == mixed.factors.b.dtype == torch.float32


@seeded
@given(SEEDS, st.lists(st.floats(-1.5, 1.5, width=16), min_size=1, max_size=4), st.sampled_from([0.5, 2.0, 16.0]))
def test_adapters_of_one_scaling_give_what_the_paper_gives(seed: int, weights: list[float], scaling: float) -> None:
    raw = [factors(4, (10, 8), (seed + place) % 2**32) for place in range(len(weights))]
    papers = scaling * reference([Term(weight, each) for weight, each in zip(weights, raw, strict=True)])
    normal = [Term(weight, Factors(f.a, scaling * f.b)) for weight, f in zip(weights, raw, strict=True)]
    assert distance(lorahub(normal).factors, papers) <= SINGLE * size(normal)


def test_unequal_scalings_count_in_b_alone() -> None:
    raw = [factors(2, (5, 6), seed) for seed in (0, 1)]
    mixed = lorahub([Term(1.0, Factors(f.a, s * f.b)) for f, s in zip(raw, (4.0, 1.0), strict=True)]).factors
    cross = 4 * double(raw[0].b) @ double(raw[1].a) + double(raw[1].b) @ double(raw[0].a)
    assert np.allclose(update(mixed), 4 * update(raw[0]) + update(raw[1]) + cross, atol=1e-5)


@seeded
@given(mixtures(one_rank=True))
def test_all_signs_turned_around_give_the_same(terms: list[Term]) -> None:
    turned = [Term(-term.weight, term.factors) for term in terms]
    assert distance(lorahub(turned).factors, update(lorahub(terms).factors)) == 0


@pytest.mark.parametrize("weight", [1.0, 0.5, -2.0])
def test_one_adapter_enters_with_the_square_of_its_weight(weight: float) -> None:
    given = factors(3, (6, 4), 0)
    assert np.array_equal(update(lorahub([Term(weight, given)]).factors), weight**2 * update(given))


def test_an_adapter_and_its_negative_leave_nothing() -> None:
    given = factors(3, (6, 4), 0)
    assert not update(lorahub([Term(0.3, given), Term(-0.3, given)]).factors).any()


@seeded
@given(mixtures(one_rank=True), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(terms: list[Term], order: Random) -> None:
    shuffled = order.sample(terms, len(terms))
    assert distance(lorahub(shuffled).factors, reference(terms)) <= SINGLE * size(terms)


def test_unequal_ranks_are_refused_with_the_ranks_and_the_way_out() -> None:
    terms = [Term(1.0, factors(rank, (6, 4), 0)) for rank in (8, 3, 8)]
    with pytest.raises(InvalidMixture, match=r"3, 8.*exact.*svd\(rank=8\)"):
        lorahub(terms)
