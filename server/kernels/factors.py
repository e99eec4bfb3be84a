"""The LoRA factors of each slot, trimmed to the rank that is in use and laid out for the kernels.

vLLM pads every slot with zeros to `max_lora_rank`, and fills it with zeros where an adapter leaves a layer
alone: products with those would be computed for nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from loraloom.server.kernels.native import Table


@dataclass(frozen=True, eq=False)
class Update:
    """What a slot adds to some columns of a layer's output: `y[:, columns] += (x @ a.T) @ b`.

    Attributes:
        columns: the columns of the output.
        a: (rank, input size), contiguous.
        b: (rank, columns), contiguous.
    """

    columns: slice
    a: torch.Tensor
    b: torch.Tensor


class LayerFactors:
    """The updates of one layer, by slot; copied when first asked for, and again after a slot was written.

    Attributes:
        table: the same for the fused kernel, of the slots that `holds` was asked for.
        dtype: of the factors.
    """

    def __init__(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
        dtype: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            a_stacked: for each slice of the output (slots, 1, max rank, input size).
            b_stacked: for each slice of the output (slots, 1, width, max rank).
            output_slices: the width of each slice; they lie side by side in the output.
            dtype: what the copies are converted to; by default nothing is.
        """
        self._slices = tuple(zip(_columns(output_slices), a_stacked, b_stacked, strict=True))
        self._stacked = (*a_stacked, *b_stacked)
        self._versions: list[int] = []
        self._updates: dict[int, tuple[Update | None, ...]] = {}
        self.dtype = dtype or a_stacked[0].dtype
        self.table = Table(len(a_stacked[0]), [columns for columns, _, _ in self._slices])

    def refresh(self) -> None:
        """Forgets what it knows if any slot was written since."""
        versions = [stacked._version for stacked in self._stacked]
        if versions != self._versions:
            self._versions = versions
            self._updates.clear()
            self.table.clear()

    def of(self, slot: int) -> tuple[Update, ...]:
        """The slot's updates; none for slices that its adapter leaves alone."""
        return tuple(update for update in self._pieces(slot) if update is not None)

    def holds(self, slots: Iterable[int]) -> bool:
        """Whether any of these slots has updates; `table` has them then."""
        return any([any(self._pieces(slot)) for slot in slots])

    def _pieces(self, slot: int) -> tuple[Update | None, ...]:
        pieces = self._updates.get(slot)
        if pieces is None:
            pieces = self._updates[slot] = tuple(self._copied(slot))
            for number, piece in enumerate(pieces):
                if piece is not None:
                    self.table.set(slot, number, piece.a, piece.b)
        return pieces

    def _copied(self, slot: int) -> Iterator[Update | None]:
        for columns, a_stacked, b_stacked in self._slices:
            a = a_stacked[slot, 0]
            rank = _rank_in_use(a)
            b = b_stacked[slot, 0, : columns.stop - columns.start, :rank]
            yield Update(columns, self._own(a[:rank]), self._own(b.t())) if rank else None

    def _own(self, factor: torch.Tensor) -> torch.Tensor:
        return factor.to(self.dtype, copy=True, memory_format=torch.contiguous_format)


class SlotFactors:
    """The factors of every layer of a model.

    A slot is written in place, which counts up its tensor's version: so a comparison of integers tells in
    every layer and step whether the copies still hold. Tensors made in inference mode do not count: those are
    copied every time.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        """
        Args:
            dtype: see `LayerFactors`.
        """
        self._dtype = dtype
        # The layer's first tensor is kept beside its factors, so that its id is not given to another tensor.
        self._layers: dict[int, tuple[torch.Tensor, LayerFactors]] = {}

    def layer(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> LayerFactors:
        """The factors of the layer that owns these tensors; for the shapes see `LayerFactors`."""
        key = a_stacked[0]
        if key.is_inference():
            return LayerFactors(a_stacked, b_stacked, output_slices, self._dtype)
        known = self._layers.get(id(key))
        if known is None:
            layer = LayerFactors(a_stacked, b_stacked, output_slices, self._dtype)
            known = self._layers[id(key)] = (key, layer)
        known[1].refresh()
        return known[1]


def _columns(widths: Sequence[int]) -> Iterator[slice]:
    start = 0
    for width in widths:
        yield slice(start, start + width)
        start += width


def _rank_in_use(a: torch.Tensor) -> int:
    """How many rows of A, (max rank, input size), there are up to the last one that is not zero."""
    used = a.ne(0).any(dim=1).nonzero()
    return int(used[-1]) + 1 if len(used) else 0
