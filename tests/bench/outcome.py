"""What a benchmark found out: tables and pictures for people, raw samples for programs, and which goals were met."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.plots import Plot


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column is flush left, the others flush right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines = (self.head, *self.rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        head, *rows = (_line(line, widths) for line in lines)
        return "\n".join([head, "-+-".join("-" * width for width in widths), *rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


@dataclass(frozen=True)
class Goal:
    """A bound that a figure must keep.

    Attributes:
        about: which figure, and its unit.
        limit: the largest value that is good enough.
        value: what was measured.
    """

    about: str
    limit: float
    value: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"goal {'met' if self.met else 'MISSED'}: {self.about}: {self.value:.4g}, at most {self.limit:.4g}"


@dataclass(frozen=True)
class Outcome:
    """One run of a benchmark.

    Attributes:
        runs: how often each figure was measured.
        parameters: what was measured, as JSON: sizes, counts, arguments.
        results: the figures, as JSON.
        samples: every raw sample, as JSON; `parameters` or the keys tell their units.
        table: the figures, for people.
        notes: what people should know when they read the table, a line each.
        goals: the bounds that figures must keep.
        plots: pictures of the figures.
    """

    runs: int
    parameters: Mapping[str, object]
    results: Mapping[str, object]
    samples: Mapping[str, object]
    table: Table
    notes: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = field(default=())
    plots: tuple[Plot, ...] = ()
