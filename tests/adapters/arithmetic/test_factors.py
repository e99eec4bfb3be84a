import pytest
import torch

from loraloom.adapters.arithmetic.factors import Factors


def test_the_rank_is_what_both_factors_share() -> None:
    assert Factors(torch.zeros(3, 5), torch.zeros(7, 3)).rank == 3


@pytest.mark.parametrize("b", [torch.zeros(7, 2), torch.zeros(3)])
def test_factors_that_do_not_multiply_are_no_update(b: torch.Tensor) -> None:
    with pytest.raises(AssertionError):
        Factors(torch.zeros(3, 5), b)
