"""Truncation of whole matrices is the best there is, and the ranks are the smallest."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.convert.dense import discarded, energy_rank, numerical_rank, truncate

sizes = st.integers(1, 24)


def _matrix(rows: int, columns: int, rank: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    b = torch.randn(rows, rank, generator=random, dtype=torch.float64)
    a = torch.randn(rank, columns, generator=random, dtype=torch.float64)
    return b @ a * scale


@given(rows=sizes, columns=sizes, rank=sizes, seed=st.integers(0, 99), scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]))
def test_what_is_lost_is_what_eckart_and_young_say(rows: int, columns: int, rank: int, seed: int, scale: float) -> None:
    update = _matrix(rows, columns, 24, seed, scale)
    rank = min(rank, rows, columns)
    factors = truncate(update, lambda _: rank)
    assert (tuple(factors.b.shape), tuple(factors.a.shape)) == ((rows, rank), (rank, columns))
    assert factors.a.dtype == factors.b.dtype == torch.float32
    lost = discarded(update, factors)
    tail = float(torch.linalg.svdvals(update)[rank:].norm())
    assert lost == pytest.approx(tail, rel=1e-4, abs=1e-6 * float(update.norm()))


@given(rows=sizes, columns=sizes, rank=sizes, seed=st.integers(0, 99))
def test_the_numerical_rank_is_the_rank(rows: int, columns: int, rank: int, seed: int) -> None:
    update = _matrix(rows, columns, rank, seed)
    factors = truncate(update, numerical_rank)
    values = torch.linalg.svdvals(update) / torch.linalg.svdvals(update)[0]
    assert (values > 1e-6).sum() <= factors.rank <= (values > 1e-9).sum() <= rank
    assert discarded(update, factors) <= 1e-6 * float(update.norm())


@given(rank=st.integers(1, 12), seed=st.integers(0, 99))
def test_both_factors_are_of_like_size(rank: int, seed: int) -> None:
    factors = truncate(_matrix(16, 20, 20, seed), lambda _: rank)
    torch.testing.assert_close(factors.a.norm(dim=1), factors.b.norm(dim=0), rtol=1e-4, atol=1e-6)


@given(values=st.lists(st.floats(0.01, 10), min_size=1, max_size=20), energy=st.floats(0.01, 1))
def test_the_energys_rank_is_the_smallest_that_keeps_it(values: list[float], energy: float) -> None:
    squares = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    rank = energy_rank(squares, energy)
    assert float(squares[:rank].sum()) >= (energy - 1e-12) * float(squares.sum())
    assert float(squares[: rank - 1].sum()) < energy * float(squares.sum())


def test_an_energy_of_one_keeps_no_rounding_errors() -> None:
    squares = torch.tensor([4.0, 1.0, 1e-17, 1e-18], dtype=torch.float64)
    assert energy_rank(squares, 1.0) == numerical_rank(squares) == 2
