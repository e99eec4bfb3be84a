import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.arithmetic.exact import exact
from loraloom.adapters.arithmetic.factors import Factors, Term
from loraloom.adapters.arithmetic.truncate import truncated, truncated_dense
from tests.adapters.arithmetic.drawn import (
    DTYPES,
    SEEDS,
    SIDES,
    SINGLE,
    distance,
    factors,
    mixtures,
    optimum,
    seeded,
    size,
    update,
)

LOSS = 8 * SINGLE
"""Of a truncation that keeps all that counts: rounding both factors, and up to 24 singular values at the tolerance."""
RANKS = st.integers(1, 12)


@seeded
@given(mixtures(), RANKS)
def test_it_is_the_nearest_of_its_rank_and_knows_how_near(terms: list[Term], rank: int) -> None:
    whole = exact(terms).factors
    mixed = truncated(whole, rank)
    nearest = optimum(update(whole), rank)
    assert mixed.factors.rank <= rank
    assert abs(mixed.discarded - nearest) <= LOSS * size(terms)
    assert abs(distance(mixed.factors, update(whole)) - nearest) <= LOSS * size(terms)


@seeded
@given(mixtures())
def test_the_true_rank_loses_nothing(terms: list[Term]) -> None:
    whole = exact(terms).factors
    mixed = truncated(whole, None)
    assert mixed.factors.rank <= min(whole.rank, *update(whole).shape)
    assert distance(mixed.factors, update(whole)) <= LOSS * size(terms)
    assert mixed.discarded <= LOSS * size(terms)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_true_rank_is_found(dtype: torch.dtype) -> None:
    given = factors(3, (20, 16), 0, dtype)
    repeated = exact([Term(0.7, given), Term(-0.2, given), Term(1.3, factors(2, (20, 16), 1, dtype))]).factors
    assert repeated.rank == 8
    assert truncated(repeated, None).factors.rank == 5


@seeded
@given(SEEDS, st.sampled_from(DTYPES), st.sampled_from([(1.0, -1.0), (0.3, -0.3), (0.6, 0.4, -1.0), (0.0,)]))
def test_what_cancels_is_one_component_of_zeros(seed: int, dtype: torch.dtype, weights: tuple[float, ...]) -> None:
    whole = exact([Term(weight, factors(4, (30, 20), seed, dtype)) for weight in weights]).factors
    for rank in (None, 2):
        zeros = truncated(whole, rank).factors
        assert (zeros.rank, zeros.a.dtype, zeros.b.dtype) == (1, torch.float32, torch.float32)
        assert not zeros.a.any()
        assert not zeros.b.any()


def test_how_a_size_is_split_between_the_factors_does_not_change_the_rank() -> None:
    plain, split = factors(2, (9, 9), 0), factors(2, (9, 9), 1)
    uneven = Factors(torch.cat([plain.a, split.a * 2**-30]), torch.cat([plain.b, split.b * 2**30], dim=1))
    assert truncated(uneven, None).factors.rank == 4


@seeded
@given(mixtures(), RANKS)
def test_both_factors_carry_the_root_of_the_singular_values(terms: list[Term], rank: int) -> None:
    kept = truncated(exact(terms).factors, rank).factors
    values = np.linalg.svd(update(kept), compute_uv=False)[: kept.rank]
    for gram in (kept.b.double().T @ kept.b.double(), kept.a.double() @ kept.a.double().T):
        assert np.allclose(gram.numpy(), np.diag(values), rtol=0, atol=LOSS * size(terms))


@seeded
@given(SIDES, SIDES, SEEDS, RANKS, st.sampled_from([1.0, 1e-200, 1e200]))
def test_a_dense_update_is_cut_to_the_nearest_of_its_rank(
    outputs: int, inputs: int, seed: int, rank: int, scale: float
) -> None:
    dense = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mixed = truncated_dense(dense * scale, rank)
    nearest, norm = optimum(dense.numpy(), rank), float(dense.norm())
    assert mixed.factors.rank == min(rank, outputs, inputs)
    assert abs(mixed.discarded / scale - nearest) <= LOSS * norm
    if scale == 1:
        assert abs(distance(mixed.factors, dense.numpy()) - nearest) <= LOSS * norm


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (3, 40), (40, 3)])
def test_the_same_comes_from_factors_and_from_the_dense_update(shape: tuple[int, int]) -> None:
    whole = factors(8, shape, 0)
    for rank in (2, 8, 50):
        small = truncated(whole, rank)
        large = truncated_dense(torch.from_numpy(update(whole)), rank)
        assert small.factors.rank == large.factors.rank
        assert distance(small.factors, update(large.factors)) <= LOSS * np.linalg.norm(update(whole))
        assert small.discarded == pytest.approx(large.discarded, abs=1e-10)


def test_no_dense_update_is_one_component_of_zeros() -> None:
    mixed = truncated_dense(torch.zeros(5, 3, dtype=torch.float64), 2)
    assert (mixed.factors.b.tolist(), mixed.factors.a.tolist()) == ([[0.0]] * 5, [[0.0] * 3])
    assert mixed.discarded == 0
