"""The composition's weights as bars, the heaviest on top."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from loraloom.compose.report.ink import BAD, GOOD, INK, LINE, MUTED, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 40
"""Bars that can be told apart in one chart."""


def by_size(weights: Mapping[str, float]) -> list[tuple[str, float]]:
    """Adapters with their weights, the largest of either sign first."""
    return sorted(weights.items(), key=lambda item: (-abs(item[1]), item[0]))


def draw_bars(axes: "Axes", weights: Mapping[str, float], most: int = MOST) -> None:
    """Draw them.

    Args:
        axes: where.
        weights: by adapter, at least one.
        most: bars to draw; a line says what the others are at most.
    """
    ordered = by_size(weights)
    shown, rest = ordered[:most], ordered[most:]
    labels = [short(name) for name, _ in shown]
    reach = max(abs(shown[0][1]), 1e-9)
    for row, (_, weight) in enumerate(shown):
        axes.barh(row, weight, height=0.62, color=GOOD if weight > 0 else BAD)
        _number(axes, row, weight, reach)
    if rest:
        axes.text(0.03 * reach, len(shown), _others(rest), va="center", color=MUTED)
        labels.append("")
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(-1.25 * reach, 1.25 * reach)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("weight (a negative one takes away what the adapter does)")


def _number(axes: "Axes", row: int, weight: float, reach: float) -> None:
    side = -1 if weight < 0 else 1
    text = f"{weight:.2f}" if abs(weight) >= 0.005 or not weight else f"{weight:.1g}"
    text = text.replace("-", "\N{MINUS SIGN}")
    axes.text(weight + side * 0.02 * reach, row, text, va="center", ha="left" if side > 0 else "right", color=INK)


def _others(rest: list[tuple[str, float]]) -> str:
    adapters = "1 more adapter" if len(rest) == 1 else f"{len(rest)} more adapters"
    return f"{adapters}, at most {abs(rest[0][1]):.2g} in size"
