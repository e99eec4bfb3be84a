"""LoRA with torch alone: one matrix product for each adapter of a step, in float32."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from loraloom.server.kernels.factors import LayerFactors, columns_of
from loraloom.server.kernels.grouping import Groups


@dataclass(frozen=True, eq=False)
class Update:
    """What a slot adds to some columns of a layer's output: `y[:, columns] += (x @ a) @ b`, all float32.

    Attributes:
        columns: the columns of the output.
        a: (input size, rank).
        b: (rank, columns).
    """

    columns: slice
    a: torch.Tensor
    b: torch.Tensor


class TorchLayer(LayerFactors):
    """One layer; float32 factors are views of vLLM's slots, others are converted once."""

    def __init__(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> None:
        """For the shapes see `LayerFactors`."""
        super().__init__(a_stacked, b_stacked)
        self._slices = tuple(zip(columns_of(output_slices), a_stacked, b_stacked, strict=True))
        self._updates: dict[int, tuple[Update, ...]] = {}

    def _take(self, slot: int) -> bool:
        self._updates[slot] = tuple(self._found(slot))
        return bool(self._updates[slot])

    def _found(self, slot: int) -> Iterator[Update]:
        for columns, a_stacked, b_stacked in self._slices:
            a, b = a_stacked[slot, 0], b_stacked[slot, 0, : columns.stop - columns.start]
            if rank := rank_in_use(a):
                yield Update(columns, a[:rank].t().float(), b[:, :rank].t().float())

    def add(self, y: torch.Tensor, x: torch.Tensor, groups: Groups, scale: float) -> None:
        """Adds the updates of each slot to its rows, which are moved together where that is cheaper."""
        by_slot = groups.by_slot
        inputs, out = by_slot.gather(x), by_slot.gather(y)
        for segment in by_slot.segments:
            rows = slice(segment.start, segment.stop)
            for update in self._updates[segment.slot]:
                shrunk = torch.mm(inputs[rows].float(), update.a)
                if scale != 1.0:
                    shrunk *= scale
                accumulate(out[rows, update.columns], shrunk, update.b)
        by_slot.put_back(y, out)


def accumulate(y: torch.Tensor, x: torch.Tensor, b: torch.Tensor) -> None:
    """y += x @ b, in place, with one rounding to y's dtype; x and b are float32."""
    if y.dtype == torch.float32:
        y.addmm_(x, b)
    else:
        y += torch.mm(x, b)


def rank_in_use(a: torch.Tensor) -> int:
    """How many rows of A, (max rank, input size), there are up to the last one that is not zero."""
    used = a.ne(0).any(dim=1).nonzero()
    return int(used[-1]) + 1 if len(used) else 0
