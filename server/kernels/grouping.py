"""Which rows of a step use which adapter slot.

The fused kernel takes each row's slot as it is. Without it, rows of one slot form a segment, and every layer does one
matrix product a segment. All this is found once a step, so that no layer has to look at the indices again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

# Measured on layers of hidden size 576: one more run costs about as much as moving 16 rows there and back.
ROWS_PER_RUN = 16


@dataclass(frozen=True)
class Segment:
    """Rows `start` to `stop` (exclusive) use `slot`."""

    slot: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Segments:
    """Rows with an adapter, each in exactly one segment; the others are in none.

    Attributes:
        segments: of the rows that have an adapter.
        order: None where segments count the rows as they come. Otherwise the (n,) indices of the rows with an
            adapter, sorted by slot, and segments count along it.
    """

    segments: tuple[Segment, ...]
    order: torch.Tensor | None = None

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """The rows that segments count along; x itself where they count those as they come."""
        return x if self.order is None else x.index_select(0, self.order)

    def put_back(self, y: torch.Tensor, changed: torch.Tensor) -> None:
        """Put gathered rows, which were changed, back to where they came from."""
        if self.order is not None:
            y.index_copy_(0, self.order, changed)


class Groups:
    """The rows of one step, grouped by slot.

    Attributes:
        slots: (rows,) int64, contiguous: each row's slot, or -1 for none.
        used: the slots that any row uses, in order.
    """

    def __init__(self, slots: torch.Tensor) -> None:
        self.slots = slots.contiguous()
        self.used: tuple[int, ...] = tuple(slot for slot in sorted(set(self.slots.tolist())) if slot >= 0)

    @property
    def rows(self) -> int:
        """How many rows the step maps, those without an adapter included."""
        return len(self.slots)

    @cached_property
    def by_slot(self) -> Segments:
        """The rows with an adapter, in segments.

        Runs of rows that lie together are taken as they are. Where there are many short ones (a decode step whose
        requests alternate between adapters), sorting the rows once and moving them in every layer is cheaper.
        """
        runs = tuple(_runs(self.slots))
        rows = sum(run.stop - run.start for run in runs)
        if (len(runs) - len(self.used)) * ROWS_PER_RUN <= rows:
            return Segments(runs)
        order = torch.argsort(self.slots, stable=True)[len(self.slots) - rows :]
        return Segments(tuple(_runs(self.slots[order])), order)

    def spread(self, rows: int) -> "Groups | None":
        """The groups of another number of rows, where all mapped rows agree: then these do, too.

        Returns:
            Groups of `rows` rows, or None where the mapped rows differ, so that nobody can tell.
        """
        if not self.used:
            return Groups(torch.full((rows,), -1))
        if bool((self.slots == self.used[0]).all()):
            return Groups(torch.full((rows,), self.used[0]))
        return None


def _runs(slots: torch.Tensor) -> Iterator[Segment]:
    values, lengths = torch.unique_consecutive(slots, return_counts=True)
    start = 0
    for slot, length in zip(values.tolist(), lengths.tolist(), strict=True):
        if slot >= 0:
            yield Segment(slot, start, start + length)
        start += length
