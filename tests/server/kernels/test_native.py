"""The compiled kernel against float64, in every form that it is compiled in."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from loraloom.server.kernels.build import ALWAYS, SOURCE
from loraloom.server.kernels.grouping import Groups
from loraloom.server.kernels.native import MAX_RANK, CompiledLayer, Kernel
from loraloom.server.kernels.trial import right
from loraloom.server.machine import processor_flags
from tests.server.kernels.slots import Slots

DTYPES = (torch.float32, torch.bfloat16)
PROCESSORS = {
    "none": (),
    "avx2": ("-mavx2", "-mfma"),
    "avx512f": ("-mavx512f", "-mavx512bw"),
    "avx512_bf16": ("-mavx512f", "-mavx512bw", "-mavx512bf16"),
}
"""What the compiler may use, by the processor's feature that it takes."""


@pytest.fixture(scope="module", params=PROCESSORS)
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, library: Path) -> Kernel:
    if request.param != "none" and request.param not in processor_flags():
        pytest.skip(f"this processor has no {request.param}")
    path = tmp_path_factory.mktemp("kernel") / "lora.so"
    subprocess.run(["cc", *ALWAYS, *PROCESSORS[request.param], str(SOURCE), "-o", str(path)], check=True)
    return Kernel(path)


def add(
    kernel: Kernel, slots: Slots, y: torch.Tensor, x: torch.Tensor, of: Sequence[int], scale: float = 1.0
) -> torch.Tensor:
    """y with the updates of each row's slot."""
    layer = CompiledLayer(kernel, slots.a, slots.b, slots.widths)
    layer.holds(sorted({slot for slot in of if slot >= 0}))
    layer.add(y, x, Groups(torch.tensor(of)), scale)
    return y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_computes_odd_sizes(kernel: Kernel, dtype: torch.dtype) -> None:
    assert right(kernel, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 8, 17, 64, MAX_RANK])
@pytest.mark.parametrize(("rows", "inputs", "width"), [(1, 1, 1), (3, 16, 64), (9, 33, 48), (64, 576, 192)])
def test_it_is_the_dense_result(
    kernel: Kernel, dtype: torch.dtype, rank: int, rows: int, inputs: int, width: int
) -> None:
    torch.manual_seed(0)
    slots = Slots.empty(1, MAX_RANK, inputs, (width,), dtype)
    a, b = (factor.double() for factor in slots.fill(0, 0, rank))
    x, y = torch.randn(rows, inputs).to(dtype), torch.randn(rows, width).to(dtype)
    expected = y.double() + (x.double() @ a.t()) @ b.t()
    magnitude = y.double().abs() + (x.double().abs() @ a.abs().t()) @ b.abs().t()
    add(kernel, slots, y, x, [0] * rows)
    bound = (inputs + rank) * torch.finfo(torch.float32).eps * magnitude
    assert bool(((y.double() - expected).abs() <= bound + torch.finfo(dtype).eps / 2 * (expected.abs() + bound)).all())


def test_a_row_gets_the_same_whatever_lies_beside_it(kernel: Kernel) -> None:
    """Alone, in a block of its own slot, and in a block of others."""
    torch.manual_seed(0)
    slots = Slots.empty(2, 8, 30, (40,))
    for slot in range(2):
        slots.fill(slot, 0, rank=5)
    y = add(kernel, slots, torch.zeros(8, 40), torch.randn(1, 30).repeat(8, 1), [0, 0, 0, 0, 1, 0, 1, 0])
    for row in (1, 2, 3, 5, 7):
        torch.testing.assert_close(y[row], y[0], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(y[4], y[0])


def test_not_a_number_and_infinity_stay_what_they_are(kernel: Kernel) -> None:
    slots = Slots.empty(1, 2, 4, (20,), torch.bfloat16)
    slots.a[0][0, 0, 0], slots.b[0][0, 0, :, 0] = 1, 1
    x = torch.tensor([[1.0] * 4, [float("nan")] * 4, [float("inf")] * 4], dtype=torch.bfloat16)
    y = add(kernel, slots, torch.zeros(3, 20, dtype=torch.bfloat16), x, [0, 0, 0])
    assert y[0].eq(4).all()
    assert y[1].isnan().all()
    assert y[2].isposinf().all()


def test_rows_may_lie_apart(kernel: Kernel) -> None:
    torch.manual_seed(0)
    slots = Slots.empty(1, 4, 8, (8,))
    a, b = slots.fill(0, 0, rank=3)
    x, y = torch.randn(5, 20)[:, 4:12], torch.zeros(5, 30)[:, 7:19]
    add(kernel, slots, y, x, [0] * 5, scale=2.0)
    torch.testing.assert_close(y[:, :8], 2 * (x @ a.t()) @ b.t(), rtol=1e-5, atol=1e-5)
    assert not y[:, 8:].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_rank_in_use(kernel: Kernel, dtype: torch.dtype) -> None:
    """B is not zero beyond the rank that A has in use, so that one sees where the kernel stops."""
    slots = Slots.empty(1, 16, 33, (20,), dtype)
    slots.b[0].fill_(1)
    x = torch.ones(1, 33, dtype=dtype)

    def result() -> float:
        return float(add(kernel, slots, torch.zeros(1, 20, dtype=dtype), x, [0])[0, 0])

    assert not CompiledLayer(kernel, slots.a, slots.b, slots.widths).holds((0,))
    slots.a[0][0, 0, 2, 32] = 0.5
    assert result() == 0.5
    slots.a[0][0, 0, 9] = -0.0
    assert result() == 0.5
    slots.a[0][0, 0, 15, 0] = 2
    assert result() == 2.5
    slots.a[0][0, 0, 5] = float("nan")
    assert result() != result()


def test_a_slot_is_used_as_it_was_when_taken(kernel: Kernel) -> None:
    slots = Slots.empty(2, 4, 8, (8,))
    slots.fill(0, 0, rank=2)
    layer = CompiledLayer(kernel, slots.a, slots.b, slots.widths)
    assert layer.holds((0,))
    assert not layer.holds((1,))
    slots.fill(1, 0, rank=2)
    y = torch.zeros(1, 8)
    layer.add(y, torch.ones(1, 8), Groups(torch.tensor([1])), 1.0)
    assert not y.any()


def test_what_it_takes(library: Path) -> None:
    kernel = Kernel(library)
    x, y, a = torch.zeros(2, 4), torch.zeros(2, 6), torch.zeros(1, 1, 8, 4)
    assert kernel.takes(y, x, a)
    assert kernel.takes(y.bfloat16(), x.bfloat16(), a.bfloat16())
    assert not kernel.takes(y, x, a.bfloat16())
    assert not kernel.takes(y, x.bfloat16(), a.bfloat16())
    assert not kernel.takes(y.half(), x.half(), a.half())
    assert not kernel.takes(torch.zeros(6, 2).t(), x, a)
    assert not kernel.takes(y, x, torch.zeros(1, 1, MAX_RANK + 1, 4))
