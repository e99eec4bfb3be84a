"""The compiled LoRA kernel, called with tensors."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from loraloom.server.kernels.factors import LayerFactors, columns_of
from loraloom.server.kernels.grouping import Groups

MAX_RANK = 512
"""The largest rank that the kernel computes: the largest that vLLM takes."""
SUFFIXES = {torch.float32: "float", torch.bfloat16: "bfloat16"}

_Int = ctypes.c_int64
_Pointer = ctypes.c_void_p


class _Update(ctypes.Structure):
    _fields_ = (("a", _Pointer), ("b", _Pointer), ("rank", _Int))


class _Slice(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("a", "b", "rows")),
        *((name, _Int) for name in ("a_step", "b_step", "rows_step", "ranks", "inputs", "first", "width")),
    )


class Kernel:
    """The kernel in a shared library that `build` made."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: it cannot be loaded.
        """
        library = ctypes.CDLL(str(path))
        rows = (_Pointer, _Int, _Pointer, _Int, _Int, _Int, _Pointer)
        self.add = _functions(library, "lora_add", None, *rows, _Pointer, _Pointer, _Int, ctypes.c_float)
        self.take = _functions(library, "lora_take", ctypes.c_int, _Pointer, _Int, _Int, _Pointer)

    @staticmethod
    def takes(y: torch.Tensor, x: torch.Tensor, a_stacked: torch.Tensor) -> bool:
        """Whether it computes with tensors such as these; for the shapes see `CompiledLayer`."""
        alike = y.dtype == x.dtype == a_stacked.dtype and x.dtype in SUFFIXES
        return alike and y.stride(1) == 1 and x.stride(1) == 1 and a_stacked.shape[-2] <= MAX_RANK


def _functions(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> dict[torch.dtype, Callable[..., Any]]:
    """A function for each dtype that it is compiled for."""
    functions = {dtype: getattr(library, f"{name}_{suffix}") for dtype, suffix in SUFFIXES.items()}
    for function in functions.values():
        function.argtypes, function.restype = arguments, result
    return functions


class CompiledLayer(LayerFactors):
    """One layer for the kernel, which reads A in vLLM's slots, and B as rows in a copy as large as its rank."""

    def __init__(
        self,
        kernel: Kernel,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> None:
        """For the shapes see `LayerFactors`; all tensors are contiguous."""
        super().__init__(a_stacked, b_stacked)
        dtype, columns = a_stacked[0].dtype, columns_of(output_slices)
        self._add, self._take_slot = kernel.add[dtype], kernel.take[dtype]
        # Never written beyond the rank in use, so that the system gives memory for no more than that.
        self._rows = [b.new_empty(len(b), b[0].numel()) for b in b_stacked]
        self._slices = (_Slice * len(columns))(
            *(
                _Slice(
                    *(tensor.data_ptr() for tensor in (a, b, rows)),
                    *(tensor.stride(0) for tensor in (a, b, rows)),
                    a.shape[-2],
                    a.shape[-1],
                    of.start,
                    of.stop - of.start,
                )
                for a, b, rows, of in zip(a_stacked, b_stacked, self._rows, columns, strict=True)
            )
        )
        self._updates = (_Update * (len(a_stacked[0]) * len(columns)))()

    def _take(self, slot: int) -> bool:
        return bool(self._take_slot(self._slices, len(self._slices), slot, self._updates))

    def add(self, y: torch.Tensor, x: torch.Tensor, groups: Groups, scale: float) -> None:
        """y[i] += scale * B (A x[i]) for every row that has a slot, with the A and B of its slot.

        Args:
            y: (rows or more, output size), changed in place.
            x: (rows or more, input size); `Kernel.takes` has accepted both.
            groups: `holds` was asked for the slots that they use.
            scale: applies to every update.
        """
        self._add(
            y.data_ptr(),
            y.stride(0),
            x.data_ptr(),
            x.stride(0),
            groups.rows,
            x.shape[1],
            groups.slots.data_ptr(),
            self._updates,
            self._slices,
            len(self._slices),
            scale,
        )
