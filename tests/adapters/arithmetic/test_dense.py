import numpy as np
import pytest
import torch

from loraloom.adapters.arithmetic.dense import dense, largest_rank
from loraloom.adapters.arithmetic.factors import Term
from tests.adapters.arithmetic.drawn import DTYPES, factors, update


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_is_written_out_in_float64(dtype: torch.dtype) -> None:
    given = factors(3, (5, 7), 0, dtype)
    written = dense(Term(-0.3, given))
    assert written.dtype == torch.float64
    assert np.allclose(written.numpy(), -0.3 * update(given), rtol=1e-14, atol=1e-14)


def test_the_largest_rank_is_taken() -> None:
    assert largest_rank([Term(1.0, factors(rank, (4, 4), 0)) for rank in (2, 5, 3)]) == 5
