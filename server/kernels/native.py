"""The fused LoRA kernel, called with tensors."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

MAX_RANK = 512
"""The largest rank that the kernel computes: the largest that vLLM takes."""
SUFFIXES = {torch.float32: "float", torch.bfloat16: "bfloat16"}

_Int = ctypes.c_int64
_Pointer = ctypes.c_void_p


class _Update(ctypes.Structure):
    _fields_ = (("a", _Pointer), ("b", _Pointer), ("rank", _Int))


class _Slice(ctypes.Structure):
    _fields_ = (("first", _Int), ("width", _Int))


class Table:
    """What the kernel needs to know of one layer: the factors of every slot, and where its slices lie.

    It holds addresses, not tensors: who fills it in keeps the tensors alive.
    """

    def __init__(self, slots: int, slices: Sequence[slice]) -> None:
        """
        Args:
            slots: how many there are.
            slices: the columns of each slice of the output.
        """
        self._slices = (_Slice * len(slices))(*(_Slice(s.start, s.stop - s.start) for s in slices))
        self._updates = (_Update * (slots * len(slices)))()
        self.count = len(slices)
        self.slices = ctypes.addressof(self._slices)
        self.updates = ctypes.addressof(self._updates)

    def set(self, slot: int, piece: int, a: torch.Tensor, b: torch.Tensor) -> None:
        """Fill in a slot's factors of one slice: a, (rank, inputs), and b, (rank, width), both contiguous."""
        self._updates[slot * self.count + piece] = _Update(a.data_ptr(), b.data_ptr(), len(a))

    def clear(self, slot: int) -> None:
        """A slot has no factors any more."""
        for piece in range(self.count):
            self._updates[slot * self.count + piece] = _Update(None, None, 0)


class Kernel:
    """The kernel in a shared library that `build` made."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: it cannot be loaded.
        """
        library = ctypes.CDLL(str(path))
        rows = (_Pointer, _Int, _Pointer, _Int, _Int, _Int, _Pointer)
        self._add = _functions(library, "lora_add", None, *rows, _Pointer, _Pointer, _Int, ctypes.c_float)
        self._rank = _functions(library, "lora_rank", _Int, _Pointer, _Int, _Int)
        self._transpose = _functions(library, "lora_transpose", None, _Pointer, _Pointer, _Int, _Int, _Int)

    def rank(self, a: torch.Tensor) -> int:
        """How many rows of A, (max rank, inputs), there are up to the last one that is not zero."""
        return int(self._rank[a.dtype](a.data_ptr(), *a.shape))

    def transposed(self, b: torch.Tensor, rank: int) -> torch.Tensor:
        """A copy of the first columns of B, (width, max rank), as (rank, width)."""
        out = torch.empty(rank, len(b), dtype=b.dtype)
        self._transpose[b.dtype](out.data_ptr(), b.data_ptr(), len(b), b.stride(0), rank)
        return out

    def takes(self, y: torch.Tensor, x: torch.Tensor, factors: torch.dtype) -> bool:
        """Whether it computes with tensors such as these."""
        alike = y.dtype == x.dtype == factors and x.dtype in SUFFIXES
        return alike and y.stride(1) == 1 and x.stride(1) == 1

    def add(self, y: torch.Tensor, x: torch.Tensor, slots: torch.Tensor, table: Table, scale: float) -> None:
        """y[i] += scale * B (A x[i]) for every row that has a slot, with the A and B of its slot.

        Args:
            y: (rows or more, output size), changed in place.
            x: (rows or more, input size), of the same dtype, which `takes` has accepted.
            slots: (rows,) int64, contiguous; below 0 for none.
            table: of the layer, with all that these slots have.
            scale: applies to every update.
        """
        self._add[x.dtype](
            y.data_ptr(),
            y.stride(0),
            x.data_ptr(),
            x.stride(0),
            len(slots),
            x.shape[1],
            slots.data_ptr(),
            table.updates,
            table.slices,
            table.count,
            scale,
        )


def _functions(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> dict[torch.dtype, Callable[..., Any]]:
    """A function for each dtype that it is compiled for."""
    functions = {dtype: getattr(library, f"{name}_{suffix}") for dtype, suffix in SUFFIXES.items()}
    for function in functions.values():
        function.argtypes, function.restype = arguments, result
    return functions
