"""The systems that are compared: what they are called, and their held-out scores as points with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, get_args

from loraloom.compose.report.ink import GOOD, INK, LINE, MUTED, short
from loraloom.compose.result import HeldOut, Result, System

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SYSTEMS: tuple[System, ...] = get_args(System)
"""In the order of the report."""

NAMES: Mapping[System, str] = MappingProxyType(
    {
        "composition": "composition",
        "nothing": "no adapter",
        "best_single": "best single adapter",
        "mean": "uniform mean",
        "in_context": "examples in the prompt",
    }
)

FAR = 8
"""A score so many times the median one is drawn at the edge, so that the others can be told apart."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How scores of an objective are written.

    Attributes:
        axis: what the axis says.
        better: which direction is better.
        factor: from a score to what is shown.
        digits: after the point.
        sign: after a number.
    """

    axis: str
    better: str
    factor: float
    digits: int
    sign: str = ""

    def text(self, score: float) -> str:
        """A score with its sign of unit."""
        value = self.factor * score
        number = f"{value:.{self.digits}f}" if abs(value) < 1e4 else f"{value:.1e}"
        return f"{number}{self.sign}".replace("-", "\N{MINUS SIGN}")

    def gain(self, score: float) -> str:
        """The same with a plus in front of what is above zero."""
        return f"+{self.text(score)}" if score > 0 else self.text(score)


NATS = Unit("held-out loss, nats a token", "less is better", 1, 3)
SHARES = MappingProxyType(
    {
        "exact_match": Unit("held-out answers given exactly, %", "more is better", 100, 1, "%"),
        "choice": Unit("held-out examples with the right choice, %", "more is better", 100, 1, "%"),
    }
)


def unit_of(objective: str) -> Unit:
    """How the scores of this objective are written."""
    return SHARES.get(objective, NATS)


def draw_systems(axes: "Axes", result: Result) -> None:
    """Each system's held-out score with its interval, the composition on top; what was not measured says so."""
    unit = unit_of(result.objective)
    scale = {system: _scaled(each, unit) for system, each in result.held_out.items()}
    edge = FAR * median(score for score, _, _ in scale.values()) if unit is NATS else 100.0
    for row, system in enumerate(SYSTEMS):
        if system in scale:
            _draw(axes, row, scale[system], edge, unit.text(result.held_out[system].score), system == "composition")
        else:
            axes.text(0.01, row, "not measured", transform=axes.get_yaxis_transform(), va="center", color=MUTED)
    _mark_composition(axes, scale, edge)
    axes.set_yticks(range(len(SYSTEMS)), [_label(system, result.held_out.get(system)) for system in SYSTEMS])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(SYSTEMS) - 0.5, -0.5)
    axes.set_xlabel(f"{unit.axis} ({unit.better})")
    axes.spines["left"].set_visible(False)


def _scaled(held_out: HeldOut, unit: Unit) -> tuple[float, float, float]:
    return unit.factor * held_out.score, unit.factor * held_out.low, unit.factor * held_out.high


def _draw(
    axes: "Axes", row: int, scaled: tuple[float, float, float], edge: float, text: str, is_composition: bool
) -> None:
    score, low, high = scaled
    colour, far = GOOD if is_composition else MUTED, score > edge
    axes.plot([min(low, edge), min(high, edge)], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot(min(score, edge), row, marker=">" if far else "o", color=colour, markersize=7, clip_on=False)
    weight = "bold" if is_composition else "normal"
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", color=INK, weight=weight)


def _mark_composition(axes: "Axes", scale: Mapping[System, tuple[float, float, float]], edge: float) -> None:
    if "composition" in scale:
        score = min(scale["composition"][0], edge)
        rows = [row for row, system in enumerate(SYSTEMS) if system in scale]
        axes.plot([score] * 2, [rows[0], rows[-1] + 0.5], color=LINE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)


def _label(system: System, held_out: HeldOut | None) -> str:
    if system == "best_single" and held_out is not None and held_out.detail:
        return f"{NAMES[system]}\n{short(held_out.detail)}"
    return NAMES[system]
