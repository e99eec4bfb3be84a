"""The LoRA factors of each layer and slot, taken when first needed and again after the slot was written.

vLLM pads every slot with zeros to `max_lora_rank`, and fills it with zeros where an adapter leaves a layer
alone: products with those would be computed for nothing. So each kernel takes what is in use.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from loraloom.server.kernels.grouping import Groups


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


class LayerFactors(ABC):
    """One layer's updates by slot, in the form that a kernel wants."""

    def __init__(self, a_stacked: Sequence[torch.Tensor], b_stacked: Sequence[torch.Tensor]) -> None:
        """
        Args:
            a_stacked: for each slice of the output (slots, 1, max rank, input size).
            b_stacked: for each slice of the output (slots, 1, width or more, max rank).
        """
        self._stacked = (*a_stacked, *b_stacked)
        self._versions: list[int] = []
        self._seen = 0
        self._taken: dict[int, bool] = {}

    @abstractmethod
    def _take(self, slot: int) -> bool:
        """Take the factors of a slot as it is now; whether there are any."""

    @abstractmethod
    def add(self, y: torch.Tensor, x: torch.Tensor, groups: Groups, scale: float) -> None:
        """Add every row's update to y, (rows or more, output size), in place; x is (rows or more, input size)."""

    def holds(self, slots: Iterable[int]) -> bool:
        """Whether any of these slots has updates; they are taken if they are not."""
        any_update = False
        for slot in slots:
            if slot not in self._taken:
                self._taken[slot] = self._take(slot)
            any_update |= self._taken[slot]
        return any_update

    def refresh(self, writes: Writes) -> None:
        """Forgets the slots that were written since; all of them if nobody noted which."""
        versions = [stacked._version for stacked in self._stacked]
        if versions == self._versions:
            return
        self._versions = versions
        for slot in writes.since(self._seen) or set(self._taken):
            self._taken.pop(slot, None)
        self._seen = writes.now


Make: TypeAlias = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[int]], LayerFactors]
"""Makes a layer of its stacked A and B, and of the widths of its slices, which lie side by side in the output."""


class SlotFactors:
    """The factors of every layer of a model.

    A slot is written in place, which counts up its tensor's version: so a comparison of integers tells in
    every layer and step whether what was taken earlier still holds. Tensors made in inference mode do not count:
    those are taken every time.
    """

    def __init__(self, make: Make, writes: Writes) -> None:
        self._make = make
        self._writes = writes
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
            return self._make(a_stacked, b_stacked, output_slices)
        known = self._layers.get(id(key))
        if known is None:
            known = self._layers[id(key)] = (key, self._make(a_stacked, b_stacked, output_slices))
        known[1].refresh(self._writes)
        return known[1]


def columns_of(widths: Sequence[int]) -> list[slice]:
    """The columns of slices that lie side by side."""
    ends = [sum(widths[: number + 1]) for number in range(len(widths))]
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
