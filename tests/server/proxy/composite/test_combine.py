"""The formula, against float64."""

import pytest
import torch

from loraloom.server.proxy.composite.combine import combine

ROWS = 5


def logits(columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (4 * torch.randn(ROWS, columns)).to(dtype)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("ours", "theirs"), [(64, 64), (64, 48), (48, 64)])
def test_it_is_the_formula_where_both_have_columns(dtype: torch.dtype, ours: int, theirs: int) -> None:
    large, expert, antiexpert = logits(ours, dtype), logits(theirs, dtype), logits(theirs, dtype)
    alpha = torch.tensor([[0.0], [1.0], [-2.5], [0.3], [4.0]])
    found = combine(large, expert, antiexpert, alpha)
    shared = min(ours, theirs)
    expected = large.double()
    expected[:, :shared] += alpha.double() * (expert.double() - antiexpert.double())[:, :shared]
    assert found.dtype == torch.float32
    assert found.shape == large.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(found[:, shared:], large[:, shared:].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_strength_of_zero_is_the_large_model_to_the_bit(dtype: torch.dtype) -> None:
    large = logits(64, dtype)
    found = combine(large, logits(64, dtype), logits(64, dtype), torch.zeros(ROWS, 1))
    assert torch.equal(found, large.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_goes_in_stays_as_it_is(dtype: torch.dtype) -> None:
    given = logits(64, dtype), logits(48, dtype), logits(48, dtype), torch.ones(ROWS, 1)
    before = [each.clone() for each in given]
    combine(*given)
    assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))
