"""The LoRA factors of each slot, trimmed to the rank that is in use.

vLLM pads every slot with zeros to `max_lora_rank`, and fills it with zeros where an adapter leaves a layer
alone: products with those would be computed for nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Update:
    """What a slot adds to some columns of a layer's output: `y[:, columns] += (x @ a) @ b`.

    Attributes:
        columns: the columns of the output.
        a: (input size, rank), a view of the slot.
        b: (rank, columns), a view of the slot.
    """

    columns: slice
    a: torch.Tensor
    b: torch.Tensor


class LayerFactors:
    """The updates of one layer, by slot; found again after a slot was written.

    Args:
        a_stacked: for each slice of the output (slots, 1, max rank, input size).
        b_stacked: for each slice of the output (slots, 1, width, max rank).
        output_slices: the width of each slice; they lie side by side in the output.
    """

    def __init__(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> None:
        self._slices = tuple(zip(_columns(output_slices), a_stacked, b_stacked, strict=True))
        self._versions: list[int] = []
        self._updates: dict[int, tuple[Update, ...]] = {}

    def refresh(self) -> None:
        """Forgets what it knows if any A was written since; the slots' B are views and need no look."""
        versions = [a._version for _, a, _ in self._slices]
        if versions != self._versions:
            self._versions = versions
            self._updates.clear()

    def of(self, slot: int) -> tuple[Update, ...]:
        """The slot's updates; none for slices that its adapter leaves alone."""
        updates = self._updates.get(slot)
        if updates is None:
            updates = self._updates[slot] = tuple(self._find(slot))
        return updates

    def _find(self, slot: int) -> Iterator[Update]:
        for columns, a_stacked, b_stacked in self._slices:
            a = a_stacked[slot, 0]
            if rank := _rank_in_use(a):
                b = b_stacked[slot, 0, : columns.stop - columns.start, :rank]
                yield Update(columns, a[:rank].t(), b.t())


class SlotFactors:
    """The factors of every layer of a model.

    A slot is written in place, which counts up its tensor's version: so a comparison of integers tells in
    every layer and step whether the ranks found earlier still hold. Tensors made in inference mode do not
    count: those are looked at every time.
    """

    def __init__(self) -> None:
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
            return LayerFactors(a_stacked, b_stacked, output_slices)
        known = self._layers.get(id(key))
        if known is None:
            known = self._layers[id(key)] = (key, LayerFactors(a_stacked, b_stacked, output_slices))
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
