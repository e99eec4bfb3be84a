"""The LoRA factors of each slot, trimmed to the rank that is in use and laid out for the kernels.

vLLM pads every slot with zeros to `max_lora_rank`, and fills it with zeros where an adapter leaves a layer
alone: products with those would be computed for nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from loraloom.server.kernels.native import SUFFIXES, Kernel, Table


@dataclass(frozen=True, eq=False)
class Update:
    """What a slot adds to some columns of a layer's output: `y[:, columns] += (x @ a.T) @ b`.

    Attributes:
        columns: the columns of the output.
        a: (rank, input size).
        b: (rank, columns).
    """

    columns: slice
    a: torch.Tensor
    b: torch.Tensor


class Layout:
    """How factors are taken from vLLM's slots: for the compiled kernel, or for torch."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel

    def factors(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A, (max rank, inputs), and B, (width, max rank), of a slot, as an `Update` has them; None if A is zero."""
        if self._kernel and a.dtype in SUFFIXES:
            rank = self._kernel.rank(a)
            # The kernel reads A where it is, and B row by row.
            return (a[:rank], self._kernel.transposed(b, rank)) if rank else None
        rank = _rank_in_use(a)
        # Converted once, and not at every product.
        return (a[:rank].float(), b[:, :rank].t().float()) if rank else None


@dataclass
class Writes:
    """Which slots were given to another adapter, and when.

    Attributes:
        ids: the adapter of each slot, by vLLM's integer id.
        now: counts up with every change.
        last: when each slot was last written, by `now`.
    """

    ids: tuple[int | None, ...] = ()
    now: int = 0
    last: dict[int, int] = field(default_factory=dict)

    def note(self, ids: Sequence[int | None]) -> None:
        """Take over a step's adapters by slot.

        An id stands for one adapter for good, except for the ids 1, 2, … up to the number of slots: with those vLLM
        warms up, and may give them again.
        """
        before = self.ids if len(self.ids) == len(ids) else (None,) * len(ids)
        changed = [
            slot
            for slot, (old, new) in enumerate(zip(before, ids, strict=True))
            if old != new or new is None or new <= len(ids)
        ]
        if changed:
            self.now += 1
            self.last.update(dict.fromkeys(changed, self.now))
        self.ids = tuple(ids)

    def since(self, then: int) -> set[int]:
        """The slots that were written after that."""
        return {slot for slot, when in self.last.items() if when > then}


class LayerFactors:
    """The updates of one layer, by slot; found when first asked for, and again after the slot was written.

    Attributes:
        table: the same for the compiled kernel, of the slots that `holds` was asked for.
    """

    def __init__(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
        layout: Layout,
    ) -> None:
        """
        Args:
            a_stacked: for each slice of the output (slots, 1, max rank, input size).
            b_stacked: for each slice of the output (slots, 1, width, max rank).
            output_slices: the width of each slice; they lie side by side in the output.
            layout: how the factors are taken from there.
        """
        self._slices = tuple(zip(_columns(output_slices), a_stacked, b_stacked, strict=True))
        self._stacked = (*a_stacked, *b_stacked)
        self._layout = layout
        self._versions: list[int] = []
        self._seen = 0
        self._updates: dict[int, tuple[Update | None, ...]] = {}
        self.table = Table(len(a_stacked[0]), [columns for columns, _, _ in self._slices])

    def refresh(self, writes: Writes) -> None:
        """Forgets the slots that were written since; all of them if nobody noted which."""
        versions = [stacked._version for stacked in self._stacked]
        if versions == self._versions:
            return
        self._versions = versions
        written = writes.since(self._seen) or set(self._updates)
        self._seen = writes.now
        for slot in written & self._updates.keys():
            del self._updates[slot]
            self.table.clear(slot)

    def of(self, slot: int) -> tuple[Update, ...]:
        """The slot's updates; none for slices that its adapter leaves alone."""
        return tuple(update for update in self._pieces(slot) if update is not None)

    def holds(self, slots: Iterable[int]) -> bool:
        """Whether any of these slots has updates; `table` has them then."""
        return any([any(self._pieces(slot)) for slot in slots])

    def _pieces(self, slot: int) -> tuple[Update | None, ...]:
        pieces = self._updates.get(slot)
        if pieces is None:
            pieces = self._updates[slot] = tuple(self._found(slot))
            for number, piece in enumerate(pieces):
                if piece is not None:
                    self.table.set(slot, number, piece.a, piece.b)
        return pieces

    def _found(self, slot: int) -> Iterator[Update | None]:
        for columns, a_stacked, b_stacked in self._slices:
            width = columns.stop - columns.start
            factors = self._layout.factors(a_stacked[slot, 0], b_stacked[slot, 0, :width])
            yield Update(columns, *factors) if factors else None


class SlotFactors:
    """The factors of every layer of a model.

    A slot is written in place, which counts up its tensor's version: so a comparison of integers tells in
    every layer and step whether what was found earlier still holds. Tensors made in inference mode do not count:
    those are looked at every time.

    Attributes:
        writes: which slots were written.
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        """
        Args:
            kernel: for which the factors are laid out; by default for torch.
        """
        self.writes = Writes()
        self._layout = Layout(kernel)
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
            return LayerFactors(a_stacked, b_stacked, output_slices, self._layout)
        known = self._layers.get(id(key))
        if known is None:
            layer = LayerFactors(a_stacked, b_stacked, output_slices, self._layout)
            known = self._layers[id(key)] = (key, layer)
        known[1].refresh(self.writes)
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
