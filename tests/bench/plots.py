"""Curves as pictures, for benchmarks where a table says too little."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Told apart by everybody (Okabe and Ito, 2008)."""
DASHES = ("-", "--", ":", "-.")
"""The second cue, so that a picture can be read without its colours."""
MARKERS = "os^Dv<>"
_FEW = 20
"""Points that each get a marker."""
_WIDTH, _HEIGHT = 4.6, 3.8
"""Inches of one panel."""


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        label: what it is.
        x, y: its points.
        ends: for each point the ends of its interval; empty where there are none.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    ends: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes.

    Attributes:
        x, y: what the axes show, with units.
        log: whether x is logarithmic, with a tick at each of its points.
    """

    x: str
    y: str
    curves: Sequence[Curve]
    log: bool = False


@dataclass(frozen=True)
class Plot:
    """One picture: panels side by side.

    Attributes:
        name: the last part of its file's name.
        title: what one sees.
    """

    name: str
    title: str
    panels: Sequence[Panel]


def drawn(plot: Plot, path: Path) -> Path:
    """Write a picture as PNG to `path`; returns it."""
    columns = len(plot.panels)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plot.title, fontsize=11)
    for axes, panel in zip(figure.subplots(1, columns, squeeze=False)[0], plot.panels, strict=True):
        _panel(axes, panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _panel(axes: Axes, panel: Panel) -> None:
    for number, curve in enumerate(panel.curves):
        _curve(axes, curve, number)
    axes.set(xlabel=panel.x, ylabel=panel.y)
    if panel.log:
        points = sorted({x for curve in panel.curves for x in curve.x})
        axes.set_xscale("log")
        axes.set_xticks(points, [f"{x:,.0f}" for x in points])
        axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0), 1.05 * high)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if len(panel.curves) > 1:
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _curve(axes: Axes, curve: Curve, number: int) -> None:
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    marker = MARKERS[number % len(MARKERS)] if len(curve.x) <= _FEW else ""
    axes.plot(curve.x, curve.y, color=colour, linestyle=dash, marker=marker, markersize=5, label=curve.label)
    for x, (low, high) in zip(curve.x, curve.ends, strict=False):
        axes.plot((x, x), (low, high), color=colour, linewidth=1, marker="_", markersize=6)
