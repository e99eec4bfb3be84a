"""The compiled kernel against float64, in every form that it is compiled in."""

import subprocess
from pathlib import Path

import pytest
import torch

from loraloom.server.kernels.build import ALWAYS, SOURCE
from loraloom.server.kernels.native import MAX_RANK, Kernel, Table
from loraloom.server.kernels.trial import right
from loraloom.server.machine import processor_flags

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
    a, b = torch.randn(rank, inputs).to(dtype), torch.randn(rank, width).to(dtype)
    x, y = torch.randn(rows, inputs).to(dtype), torch.randn(rows, width).to(dtype)
    expected = y.double() + (x.double() @ a.double().t()) @ b.double()
    magnitude = y.double().abs() + (x.double().abs() @ a.double().abs().t()) @ b.double().abs()
    table = Table(1, [slice(0, width)])
    table.set(0, 0, a, b)
    kernel.add(y, x, torch.zeros(rows, dtype=torch.long), table, 1.0)
    bound = (inputs + rank) * torch.finfo(torch.float32).eps * magnitude
    assert bool(((y.double() - expected).abs() <= bound + torch.finfo(dtype).eps / 2 * (expected.abs() + bound)).all())


def test_a_row_gets_the_same_whatever_lies_beside_it(kernel: Kernel) -> None:
    """Alone, in a block of its own slot, and in a block of others."""
    torch.manual_seed(0)
    table = Table(2, [slice(0, 40)])
    factors = [(torch.randn(5, 30), torch.randn(5, 40)) for _ in range(2)]
    for slot, (a, b) in enumerate(factors):
        table.set(slot, 0, a, b)
    x = torch.randn(1, 30).repeat(8, 1)
    y = torch.zeros(8, 40)
    kernel.add(y, x, torch.tensor([0, 0, 0, 0, 1, 0, 1, 0]), table, 1.0)
    for row in (1, 2, 3, 5, 7):
        torch.testing.assert_close(y[row], y[0], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(y[4], y[0])


def test_not_a_number_and_infinity_stay_what_they_are(kernel: Kernel) -> None:
    table = Table(1, [slice(0, 20)])
    a, b = torch.ones(1, 4, dtype=torch.bfloat16), torch.ones(1, 20, dtype=torch.bfloat16)
    table.set(0, 0, a, b)
    x = torch.tensor([[1.0] * 4, [float("nan")] * 4, [float("inf")] * 4], dtype=torch.bfloat16)
    y = torch.zeros(3, 20, dtype=torch.bfloat16)
    kernel.add(y, x, torch.tensor([0, 0, 0]), table, 1.0)
    assert y[0].eq(4).all()
    assert y[1].isnan().all()
    assert y[2].isposinf().all()


def test_rows_may_lie_apart(kernel: Kernel) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 8), torch.randn(3, 8)
    table = Table(1, [slice(2, 10)])
    table.set(0, 0, a, b)
    x, y = torch.randn(5, 20)[:, 4:12], torch.zeros(5, 30)[:, 7:19]
    kernel.add(y, x, torch.zeros(5, dtype=torch.long), table, 2.0)
    torch.testing.assert_close(y[:, 2:10], 2 * (x @ a.t()) @ b, rtol=1e-5, atol=1e-5)
    assert not y[:, :2].any()
    assert not y[:, 10:].any()


def test_a_cleared_slot_adds_nothing(kernel: Kernel) -> None:
    table = Table(1, [slice(0, 8)])
    a, b = torch.ones(2, 8), torch.ones(2, 8)
    table.set(0, 0, a, b)
    table.clear(0)
    y = torch.zeros(3, 8)
    kernel.add(y, torch.ones(3, 8), torch.zeros(3, dtype=torch.long), table, 1.0)
    assert not y.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_rank_in_use_and_the_transposed_copy(kernel: Kernel, dtype: torch.dtype) -> None:
    a = torch.zeros(16, 33, dtype=dtype)
    assert kernel.rank(a) == 0
    a[2, 32] = 1e-30
    assert kernel.rank(a) == 3
    a[5], a[9] = float("nan"), -0.0
    assert kernel.rank(a) == 6
    a[15, 0] = float("inf")
    assert kernel.rank(a) == 16
    b = torch.randn(150, 16).to(dtype)[3:]
    assert torch.equal(kernel.transposed(b, 5), b[:, :5].t())


def test_what_it_takes(library: Path) -> None:
    kernel = Kernel(library)
    x, y = torch.zeros(2, 4), torch.zeros(2, 6)
    assert kernel.takes(y, x, torch.float32)
    assert kernel.takes(y.bfloat16(), x.bfloat16(), torch.bfloat16)
    assert not kernel.takes(y, x, torch.bfloat16)
    assert not kernel.takes(y, x.bfloat16(), torch.bfloat16)
    assert not kernel.takes(y.half(), x.half(), torch.float16)
    assert not kernel.takes(torch.zeros(6, 2).t(), x, torch.float32)
