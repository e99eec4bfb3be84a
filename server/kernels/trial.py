"""`python -m loraloom.server.kernels.trial LIBRARY`: whether a compiled kernel computes what it should."""

import sys
from pathlib import Path

import torch

from loraloom.server.kernels.grouping import Groups
from loraloom.server.kernels.native import SUFFIXES, CompiledLayer, Kernel

INPUTS, WIDTHS, MAX_RANK, SLOTS = 75, (83, 7), 8, 2
ROWS = (1, 1, 1, 1, -1, 0, 1, 0, 0, 0, 0)


def right(kernel: Kernel, dtype: torch.dtype) -> bool:
    """One product of odd sizes against the same in float64; the last columns of y belong to no slice."""
    torch.manual_seed(0)
    x = torch.randn(len(ROWS), INPUTS).to(dtype)
    y = torch.randn(len(ROWS), sum(WIDTHS) + 1).to(dtype)
    a = [torch.zeros(SLOTS, 1, MAX_RANK, INPUTS, dtype=dtype) for _ in WIDTHS]
    b = [torch.zeros(SLOTS, 1, width, MAX_RANK, dtype=dtype) for width in WIDTHS]
    expected = y.double()
    for slot in range(SLOTS):
        rows, rank, start = torch.tensor(ROWS) == slot, 5 + slot, 0
        for a_stacked, b_stacked, width in zip(a, b, WIDTHS, strict=True):
            a_stacked[slot, 0, :rank] = torch.randn(rank, INPUTS)
            b_stacked[slot, 0, :, :rank] = torch.randn(width, rank)
            update = b_stacked[slot, 0].double() @ a_stacked[slot, 0].double()
            expected[rows, start : start + width] += x[rows].double() @ update.t() / 2
            start += width
    layer = CompiledLayer(kernel, a, b, WIDTHS)
    layer.holds(range(SLOTS))
    layer.add(y, x, Groups(torch.tensor(ROWS)), 0.5)
    bound = 1e-4 + expected.abs() * torch.finfo(dtype).eps
    return bool(((y.double() - expected).abs() <= bound).all())


def main(path: Path) -> str | None:
    """Try it; what is wrong with it."""
    kernel = Kernel(path)
    wrong = [str(dtype) for dtype in SUFFIXES if not right(kernel, dtype)]
    return f"error: wrong sums in {', '.join(wrong)}" if wrong else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
