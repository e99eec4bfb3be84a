"""The comparison as a picture: what it says, accuracy by task, the gap, and the price."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loraloom.compose.report.ink import GOOD, INK, LINE, MUTED, drawing, plain, short
from loraloom.server.proxy.evaluation.arms import LARGE, LARGE_TUNED, SHOTS, SMALL, SMALL_TUNED, headline
from loraloom.server.proxy.evaluation.gap import Closed
from loraloom.server.proxy.evaluation.result import Result, Score
from loraloom.server.proxy.evaluation.spec import HEADLINE as ALPHA
from loraloom.server.proxy.evaluation.words import conclusion, details, mean_name, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WIDTH, HEIGHT, DPI = 10.0, 10.5, 130
"""In inches, and pixels of one."""
_SPREAD = 0.72
"""How much of a task's column its arms fill."""
_WIDE = 100
"""Characters of the names of tasks that fit side by side, with some room between them."""
_LINE = 150
"""Characters of text that fit side by side."""


@dataclass(frozen=True, slots=True)
class Style:
    """The colour of an arm, its sign in matplotlib's letters, and whether the sign is filled.

    So a picture can be read without its colours too.
    """

    colour: str
    marker: str
    filled: bool = True


_FIXED: Mapping[str, Style] = {
    LARGE: Style("#4d5463", "o"),
    SHOTS: Style("#4d5463", "o", filled=False),
    SMALL: Style("#56b4e9", "s", filled=False),
    SMALL_TUNED: Style("#56b4e9", "s"),
    LARGE_TUNED: Style("#009e73", "D"),
}
HEADLINE = Style("#d55e00", "^")
_WEAKER, _STRONGER = Style("#e69f00", "v", filled=False), Style("#8f2d56", "^", filled=False)
"""Colours that those who confuse red and green tell apart too, after Okabe and Ito."""


def styles(keys: Sequence[str]) -> Mapping[str, Style]:
    """The style of each arm, given in the order of the report: strengths ascend."""
    found: dict[str, Style] = {}
    proxy = _WEAKER
    for key in keys:
        if key == headline():
            found[key], proxy = HEADLINE, _STRONGER
        else:
            found[key] = _FIXED.get(key, proxy)
    return found


def picture(result: Result) -> bytes:
    """A PNG of `WIDTH` x `HEIGHT` inches, of a result with at least one arm on one task."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with drawing("proxy-eval"):
        layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12)
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white", layout=layout)
        parts: list[SubFigure] = list(figure.subfigures(3, 1, squeeze=False, height_ratios=[1.55, 4.9, 3.7])[:, 0])
        head, accuracy, below = parts
        halves: list[SubFigure] = list(below.subfigures(1, 2, squeeze=False, width_ratios=[1, 1.25])[0])
        gap, price = halves
        _write_head(head, result)
        _draw_accuracy(_titled(accuracy, "Right answers, by task"), result)
        _draw_gaps(_titled(gap, "Share of the gap to direct tuning that is closed", 0.04), result)
        _draw_speeds(_titled(price, "Price: tokens written per second", 0.04), result)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=DPI, metadata={"Software": None})
    return written.getvalue()


def _titled(part: "SubFigure", title: str, x: float = 0.02) -> "Axes":
    part.suptitle(title, x=x, ha="left", fontsize=11, fontweight="bold")
    return part.add_subplot()


def _write_head(part: "SubFigure", result: Result) -> None:
    spec = result.about["spec"]
    small, large = (short(Path(spec[role]).name) for role in ("small", "large"))
    names = f"{small} steers {large}" + ("" if result.complete else "  (not complete)")
    part.text(0.02, 0.97, plain(names), va="top", color=MUTED, fontsize=9)
    part.text(0.02, 0.82, conclusion(result), va="top", color=INK, fontsize=16, fontweight="bold")
    text = textwrap.fill(" ".join(details(result)), _LINE, max_lines=4, placeholder=" …")
    part.text(0.02, 0.52, text, va="top", color=INK, fontsize=9, linespacing=1.4)


def _draw_accuracy(axes: "Axes", result: Result) -> None:
    """Each task's arms side by side, the means at the end."""
    keys = [key for key in result.labels if any(key in scores for scores in result.tasks.values())]
    looks = styles(list(result.labels))
    columns = [*result.tasks.values(), *([result.means] if len(result.tasks) > 1 else [])]
    for number, key in enumerate(keys):
        shift = _SPREAD * ((number + 0.5) / len(keys) - 0.5)
        points = [(column + shift, scores[key]) for column, scores in enumerate(columns) if key in scores]
        _draw_points(axes, points, looks[key], result.labels[key])
    if len(result.tasks) > 1:
        axes.axvspan(len(columns) - 1.5, len(columns) - 0.5, color=LINE, alpha=0.35, linewidth=0, zorder=0)
    names = [*(short(name) for name in result.tasks), mean_name(result)][: len(columns)]
    axes.set_xticks(range(len(columns)), names, rotation=0 if sum(map(len, names)) < _WIDE else 90)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-2, 102)
    axes.set_ylabel("right, %, with 95% intervals")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=8.5)


def _draw_points(axes: "Axes", points: "list[tuple[float, Score]]", style: Style, label: str) -> None:
    for x, score in points:
        low, high = 100 * score.accuracy.low, 100 * score.accuracy.high
        axes.plot([x, x], [low, high], color=style.colour, linewidth=1.3, alpha=0.75)
    where = [x for x, _ in points]
    _mark(axes, where, [100 * score.accuracy.value for _, score in points], style, label)


def _mark(axes: "Axes", x: list[float], y: list[float], style: Style, label: str | None = None) -> None:
    face = style.colour if style.filled else "white"
    axes.plot(x, y, style.marker, color=style.colour, markerfacecolor=face, markersize=6.5, label=label, clip_on=False)


def _draw_gaps(axes: "Axes", result: Result) -> None:
    """A row a task, their means at the bottom: alpha 1 with its interval, the best strength as an empty sign."""
    rows = [*result.gaps.items(), *([("mean", result.gap)] if result.gap and len(result.gaps) > 1 else [])]
    if not rows:
        axes.set_axis_off()
        axes.text(0, 0.9, "Undefined: it needs all of large alone, proxy-tuned\nand tuned directly.", color=MUTED)
        return
    for row, (_, gap) in enumerate(rows):
        _draw_share(axes, row, gap.headline)
        if gap.best.share is not None and gap.best_alpha != ALPHA:
            _mark(axes, [100 * gap.best.share], [row], Style(HEADLINE.colour, "^", filled=False))
    for share, colour in ((0, LINE), (100, GOOD)):
        axes.axvline(share, color=colour, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(rows)), [short(name) for name, _ in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("%, at alpha 1; empty: at the best alpha of the test prompts")
    axes.spines["left"].set_visible(False)


def _draw_share(axes: "Axes", row: int, closed: Closed) -> None:
    if closed.share is None:
        text = f"a gap of {100 * closed.gap:.0f} points"
        axes.text(0.1, row, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED)
        return
    if closed.low is not None and closed.high is not None:
        axes.plot([100 * closed.low, 100 * closed.high], [row, row], color=HEADLINE.colour, linewidth=1.6)
    _mark(axes, [100 * closed.share], [row], HEADLINE)
    axes.text(1.02, row, percent(closed.share), transform=axes.get_yaxis_transform(), va="center", color=INK)


def _draw_speeds(axes: "Axes", result: Result) -> None:
    """A row an arm: the median over rounds, the slowest and the fastest as a line."""
    looks = styles(list(result.labels))
    rows = [key for key in result.labels if key in result.speeds]
    if not rows:
        axes.set_axis_off()
        axes.text(0, 0.9, "Not measured (speed_rounds: 0).", color=MUTED)
        return
    base = result.speeds.get(LARGE)
    for row, key in enumerate(rows):
        speed = result.speeds[key]
        axes.plot([0, speed.median], [row, row], color=LINE, linewidth=1, zorder=0)
        axes.plot([speed.low, speed.high], [row, row], color=looks[key].colour, linewidth=1.6)
        _mark(axes, [speed.median], [row], looks[key])
        ratio = f"{speed.median:,.0f}" + (f"  ({speed.median / base.median:.2f}x)" if base and key != LARGE else "")
        axes.text(1.02, row, ratio, transform=axes.get_yaxis_transform(), va="center", color=INK)
    axes.set_yticks(range(len(rows)), [result.labels[key] for key in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"all answers of one length, {result.about['spec']['concurrency']} requests at once")
    axes.spines["left"].set_visible(False)
