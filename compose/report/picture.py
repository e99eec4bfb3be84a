"""The report as a picture: the verdict, and the charts below it."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from loraloom.compose.report.bars import draw_bars
from loraloom.compose.report.curve import draw_curve
from loraloom.compose.report.ink import BAD, GOOD, INK, MUTED, drawing, plain
from loraloom.compose.report.remark import format_remark
from loraloom.compose.report.systems import draw_systems
from loraloom.compose.result import Result, VerdictName
from loraloom.compose.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WIDTH, HEIGHT, DPI = 8.0, 11.0, 150
"""In inches, and pixels of one."""

BARS = 14
"""Weights that fit."""
LINE = 112
"""Characters of text that fit side by side; of digits and signs, which are wider, `WIDE`."""
WIDE = 88

_COLOURS: Mapping[VerdictName, str] = MappingProxyType({"better": GOOD, "not better": BAD, "undecidable": MUTED})


def picture(result: Result, trials: Sequence[Trial]) -> bytes:
    """A PNG of `WIDTH` x `HEIGHT` inches.

    Args:
        result: of the job.
        trials: of all its searches, at least one of them of fold 0.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    heights = [2.15, 3.3, 2.5, 1.0 + 0.16 * min(len(result.chosen.weights), BARS)]
    with drawing("picture"):
        layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12, hspace=0.04)
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white", layout=layout)
        parts: list[SubFigure] = list(figure.subfigures(4, 1, squeeze=False, height_ratios=heights)[:, 0])
        _write_verdict(parts[0], result)
        draw_curve(_titled(parts[1], "What the search found"), trials, result.chosen, result.objective)
        draw_systems(_titled(parts[2], "How it does on held-out examples"), result)
        draw_bars(_titled(parts[3], "What it is made of"), result.chosen.weights, BARS)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=DPI, metadata={"Software": None})
    return written.getvalue()


def _titled(part: "SubFigure", title: str) -> "Axes":
    part.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold")
    return part.add_subplot()


def _write_verdict(part: "SubFigure", result: Result) -> None:
    name, head = f"{result.name}  \N{EM DASH}  job {result.job}", str(result.verdict).capitalize()
    reasons = filter(None, [result.verdict.reason, format_remark(result)])
    part.text(0.02, 0.98, plain(name), va="top", color=MUTED, fontsize=9)
    part.text(0.02, 0.86, head, va="top", color=_COLOURS[result.verdict.name], fontsize=24, fontweight="bold")
    part.text(0.02, 0.6, _lines(" ".join(reasons), 4), va="top", color=INK, fontsize=9.5, linespacing=1.4)
    part.text(0.02, 0.02, plain(_request(result)), va="bottom", color=MUTED, fontsize=9)


def _request(result: Result) -> str:
    if result.published:
        return f"Published as {result.published}"
    return _clipped(f"Not published; as a request's model: {result.chosen.expression}")


def _clipped(text: str) -> str:
    return text if len(text) <= WIDE else f"{text[: WIDE - 1]}\N{HORIZONTAL ELLIPSIS}"


def _lines(text: str, most: int) -> str:
    return textwrap.fill(plain(text), LINE, max_lines=most, placeholder=" \N{HORIZONTAL ELLIPSIS}")
