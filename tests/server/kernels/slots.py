"""vLLM's slots of one layer, as its own code makes and fills them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Slots:
    """The stacked factors of a packed layer.

    Attributes:
        a: for each slice (slots, 1, max rank, inputs).
        b: for each slice (slots, 1, width, max rank).
        widths: of the slices.
    """

    a: tuple[torch.Tensor, ...]
    b: tuple[torch.Tensor, ...]
    widths: tuple[int, ...]

    @classmethod
    def empty(
        cls, slots: int, max_rank: int, inputs: int, widths: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> "Slots":
        a = tuple(torch.zeros(slots, 1, max_rank, inputs, dtype=dtype) for _ in widths)
        b = tuple(torch.zeros(slots, 1, width, max_rank, dtype=dtype) for width in widths)
        return cls(a, b, tuple(widths))

    def fill(self, slot: int, piece: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Write random factors into a slot; returns them as they are there, (rank, inputs) and (width, rank)."""
        a, b = self.a[piece], self.b[piece]
        a[slot], b[slot] = 0, 0
        a[slot, 0, :rank].copy_(torch.randn(rank, a.shape[-1]))
        b[slot, 0, :, :rank].copy_(torch.randn(b.shape[-2], rank))
        return a[slot, 0, :rank].clone(), b[slot, 0, :, :rank].clone()
