import pytest
import torch

from loraloom.server.kernels.grouping import Groups
from loraloom.server.kernels.products import TorchLayer, rank_in_use
from tests.server.kernels.slots import Slots

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_the_dense_result(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    slots = Slots.empty(2, 8, 24, (16, 6), dtype)
    (a, b), (c, d) = slots.fill(1, 0, rank=5), slots.fill(1, 1, rank=2)
    layer = TorchLayer(slots.a, slots.b, slots.widths)
    assert layer.holds((0, 1))
    x, y = torch.randn(3, 24).to(dtype), torch.zeros(3, 22).to(dtype)
    layer.add(y, x, Groups(torch.tensor([1, -1, 0])), 0.5)
    row = x[0].double()
    expected = torch.cat([b.double() @ (a.double() @ row), d.double() @ (c.double() @ row)]) / 2
    torch.testing.assert_close(y[0].double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)
    assert not y[1:].any()


def test_a_slot_that_is_empty_holds_nothing() -> None:
    slots = Slots.empty(2, 8, 24, (16, 6))
    assert not TorchLayer(slots.a, slots.b, slots.widths).holds((0, 1))


def test_the_rank_in_use() -> None:
    a = torch.zeros(16, 33)
    assert rank_in_use(a) == 0
    a[2, 32] = 1e-30
    a[9] = -0.0
    assert rank_in_use(a) == 3
    a[5] = float("nan")
    assert rank_in_use(a) == 6
