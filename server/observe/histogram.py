"""Times counted by buckets: a few numbers, however many times there were."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Bounds: TypeAlias = tuple[float, ...]
"""The upper ends of buckets, in seconds, ascending; what lies beyond the last has a bucket without an end."""

ANSWERS: Bounds = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""For whole requests."""
FIRSTS: Bounds = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""For first tokens."""
BETWEEN: Bounds = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 5)
"""For the time between two tokens: from a fast GPU to a slow CPU under load."""
WAITS: Bounds = (0.005, 0.05, 0.25, 1, 5, 15, 60)
"""For queues."""


@dataclass(slots=True)
class Histogram:
    """How many times there were in each bucket, and what they add up to.

    Attributes:
        bounds: of the buckets.
        counts: of times in each bucket, those before it left out; one more than there are bounds.
        total: seconds.
    """

    bounds: Bounds
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a time, or several that are the same."""
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.total += seconds * times

    def merge(self, other: "Histogram") -> None:
        """Count what another one of the same bounds has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> "Histogram":
        """One that does not change with this."""
        return Histogram(self.bounds, list(self.counts), self.total)

    @property
    def count(self) -> int:
        """How many times there were."""
        return sum(self.counts)

    def cumulative(self) -> Sequence[tuple[str, float]]:
        """As Prometheus wants it: each bucket's end, and how many times there were up to it."""
        so_far, buckets = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            so_far += count
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(so_far)))
        return buckets
