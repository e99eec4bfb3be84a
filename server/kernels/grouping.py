"""Which rows of a step use which adapter slot.

Rows of one slot form a segment, and every layer then does one matrix product a segment. The boundaries are
Python integers found once a step, so that no layer has to look at the indices again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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
class Groups:
    """The rows of one step, grouped by slot.

    Attributes:
        rows: how many rows the step maps, those without an adapter included.
        segments: the rows that have an adapter; the others are in no segment.
        order: None where segments count the rows as they come. Otherwise the (n,) indices of the rows with an
            adapter, sorted by slot, and segments count along it.
    """

    rows: int
    segments: tuple[Segment, ...] = ()
    order: torch.Tensor | None = None

    def spread(self, rows: int) -> "Groups | None":
        """The groups of another number of rows, where all mapped rows agree: then these do, too.

        Returns:
            Groups of `rows` rows, or None where the mapped rows differ, so that nobody can tell.
        """
        if not self.segments:
            return Groups(rows)
        first = self.segments[0]
        if self.order is None and first.stop - first.start == self.rows:
            return Groups(rows, (Segment(first.slot, 0, rows),))
        return None


def group_rows(slots: torch.Tensor) -> Groups:
    """Groups the rows of a step by their slot.

    Runs of rows that lie together are taken as they are. Where there are many short ones (a decode step whose
    requests alternate between adapters), sorting the rows once and moving them in every layer is cheaper.

    Args:
        slots: (rows,) int64, each row's slot, or -1 for none.

    Returns:
        The groups; every row with a slot is in exactly one segment.
    """
    runs = tuple(_runs(slots))
    rows = sum(run.stop - run.start for run in runs)
    spare_runs = len(runs) - len({run.slot for run in runs})
    if spare_runs * ROWS_PER_RUN <= rows:
        return Groups(len(slots), runs)
    order = torch.argsort(slots, stable=True)[len(slots) - rows :]
    return Groups(len(slots), tuple(_runs(slots[order])), order)


def _runs(slots: torch.Tensor) -> Iterator[Segment]:
    values, lengths = torch.unique_consecutive(slots, return_counts=True)
    start = 0
    for slot, length in zip(values.tolist(), lengths.tolist(), strict=True):
        if slot >= 0:
            yield Segment(slot, start, start + length)
        start += length
