"""`python -m loraloom.server.kernels.trial LIBRARY`: whether a compiled kernel computes what it should."""

import sys
from pathlib import Path

import torch

from loraloom.server.kernels.native import SUFFIXES, Kernel, Table

INPUTS, WIDTHS, RANK, SLOTS = 75, (83, 7), 5, 2
ROWS = (1, 1, 1, 1, -1, 0, 1, 0, 0, 0, 0)


def right(kernel: Kernel, dtype: torch.dtype) -> bool:
    """One product of odd sizes against the same in float64; the last columns of y belong to no slice."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(ROWS), INPUTS, generator=generator).to(dtype)
    y = torch.randn(len(ROWS), sum(WIDTHS) + 1, generator=generator).to(dtype)
    columns = (slice(0, WIDTHS[0]), slice(WIDTHS[0], sum(WIDTHS)))
    table, expected, kept = Table(SLOTS, columns), y.double(), []
    for slot in range(SLOTS):
        rows = torch.tensor(ROWS) == slot
        for piece, of in enumerate(columns):
            a = torch.randn(RANK, INPUTS, generator=generator).to(dtype)
            b = torch.randn(RANK, WIDTHS[piece], generator=generator).to(dtype)
            table.set(slot, piece, a, b)
            kept.append((a, b))
            expected[rows, of] += (x[rows].double() @ a.double().t()) @ b.double() / 2
    kernel.add(y, x, torch.tensor(ROWS), table, 0.5)
    bound = 1e-4 + expected.abs() * torch.finfo(dtype).eps
    return bool(((y.double() - expected).abs() <= bound).all())


def main(path: Path) -> str | None:
    """Try it; what is wrong with it."""
    kernel = Kernel(path)
    wrong = [str(dtype) for dtype in SUFFIXES if not right(kernel, dtype)]
    return f"error: wrong sums in {', '.join(wrong)}" if wrong else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
