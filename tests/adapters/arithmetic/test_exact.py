from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.arithmetic.exact import exact
from loraloom.adapters.arithmetic.factors import Factors, Term
from tests.adapters.arithmetic.drawn import (
    DOUBLE,
    DTYPES,
    SEEDS,
    SINGLE,
    WEIGHTS,
    distance,
    factors,
    mixtures,
    seeded,
    size,
    update,
    updates,
)


@seeded
@given(mixtures())
def test_it_is_the_weighted_sum(terms: list[Term]) -> None:
    mixed = exact(terms)
    assert distance(mixed.factors, sum(updates(terms))) <= SINGLE * size(terms)
    assert mixed.factors.rank == sum(term.factors.rank for term in terms)
    assert mixed.discarded == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_once_an_adapter_is_that_adapter(dtype: torch.dtype) -> None:
    given = factors(3, (5, 7), 0, dtype)
    mixed = exact([Term(1.0, given)]).factors
    assert mixed.b.dtype == mixed.a.dtype == dtype
    assert torch.equal(mixed.a, given.a)
    assert torch.equal(mixed.b, given.b)


@seeded
@given(WEIGHTS, SEEDS, st.sampled_from(DTYPES))
def test_an_adapter_and_its_negative_leave_nothing(weight: float, seed: int, dtype: torch.dtype) -> None:
    given = factors(4, (6, 9), seed, dtype)
    terms = [Term(weight, given), Term(-weight, given)]
    assert distance(exact(terms).factors, 0 * update(given)) <= DOUBLE * size(terms)


@seeded
@given(mixtures(), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(terms: list[Term], order: Random) -> None:
    shuffled = order.sample(terms, len(terms))
    assert distance(exact(shuffled).factors, update(exact(terms).factors)) <= SINGLE * size(terms)


@seeded
@given(mixtures(), WEIGHTS)
def test_it_is_linear_in_the_weights(terms: list[Term], factor: float) -> None:
    scaled = [Term(factor * term.weight, term.factors) for term in terms]
    assert distance(exact(scaled).factors, factor * update(exact(terms).factors)) <= 2 * SINGLE * size(scaled)


@seeded
@given(mixtures(), st.integers(0, 4))
def test_the_parts_of_a_mixture_add_up(terms: list[Term], cut: int) -> None:
    parts = [part for part in (terms[:cut], terms[cut:]) if part]
    assert distance(exact(terms).factors, sum(update(exact(part).factors) for part in parts)) <= SINGLE * size(terms)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("weight", "exactly"), [(0.5, True), (-4.0, True), (0.0, True), (0.6, False), (1e9, None)])
def test_b_keeps_a_narrow_type_only_where_nothing_is_rounded(
    dtype: torch.dtype, weight: float, exactly: bool | None
) -> None:
    terms = [Term(weight, factors(2, (6, 5), 1, dtype)), Term(1.0, factors(2, (6, 5), 2, dtype))]
    mixed = exact(terms).factors
    assert mixed.b.dtype == (dtype if exactly else torch.float32)
    assert mixed.a.dtype == dtype
    assert mixed.b.isfinite().all()


def test_a_weight_that_float16_cannot_reach_makes_float32() -> None:
    smallest = torch.full((2, 1), 2.0**-24, dtype=torch.float16)
    mixed = exact([Term(0.5, Factors(torch.ones(1, 3, dtype=torch.float16), smallest))]).factors
    assert mixed.b.tolist() == [[2.0**-25]] * 2


def test_terms_of_several_types_come_out_in_one_that_holds_them() -> None:
    terms = [Term(1.0, factors(2, (4, 4), seed, dtype)) for seed, dtype in enumerate(DTYPES[:2])]
    mixed = exact(terms).factors
    assert mixed.a.dtype == mixed.b.dtype == torch.float32
    assert distance(mixed, sum(updates(terms))) <= DOUBLE * size(terms)
