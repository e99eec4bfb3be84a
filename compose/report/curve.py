"""The learning curve: what the search tried, and the best that it had found by then."""

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from loraloom.compose.report.ink import BAD, GOOD, INK, LINE, MUTED
from loraloom.compose.result import Chosen
from loraloom.compose.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINES = {"none": ("no adapter", "s"), "single": ("one adapter alone", "D"), "mean": ("uniform mean", "P")}
"""Kinds of trials before the search, what they are called, and their marks."""


def draw_curve(axes: "Axes", trials: Sequence[Trial], chosen: Chosen, objective: str) -> None:
    """Draw the search on all examples, and with thin lines those that each left one out.

    Args:
        axes: where.
        trials: of all folds, at least one of fold 0.
        chosen: the composition; its trial is marked.
        objective: that was minimised, as in the job's description.
    """
    from matplotlib.ticker import MaxNLocator

    kept = [trial for trial in trials if trial.fold == 0]
    top = ceiling(kept)
    for kind, (label, mark) in BASELINES.items():
        _dots(axes, [trial for trial in kept if trial.kind == kind and not trial.bound], top, mark, INK, label)
    searched = [trial for trial in kept if trial.kind not in BASELINES]
    _dots(axes, [trial for trial in searched if not trial.bound], top, "o", MUTED, "searched")
    _dots(axes, [trial for trial in kept if trial.bound], top, "2", MUTED, "given up early: at least this")
    _draw_best(axes, kept)
    _draw_folds(axes, [trial for trial in trials if trial.fold != 0])
    _ring(axes, kept, chosen)
    _limit(axes, kept, top)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylabel(_what(objective))
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize=8)


def best_so_far(trials: Sequence[Trial]) -> list[tuple[int, float]]:
    """After each trial that was scored to its end, its number and the least objective until then."""
    whole = [trial for trial in trials if not trial.bound]
    return list(zip((trial.trial for trial in whole), accumulate((t.objective for t in whole), min), strict=True))


def ceiling(trials: Sequence[Trial]) -> float:
    """The highest objective that is drawn at its place: bad candidates must not flatten what counts."""
    values = sorted(trial.objective for trial in trials)
    baselines = [trial.objective for trial in trials if trial.kind in ("none", "mean")]
    least = values[0]
    reach = max([values[len(values) // 2], *baselines[:1]]) - least
    return min(values[-1], least + 1.6 * reach) if reach > 0 else values[-1]


def _draw_best(axes: "Axes", kept: Sequence[Trial]) -> None:
    steps = best_so_far(kept)
    numbers, values = [number for number, _ in steps], [value for _, value in steps]
    last = kept[-1].trial
    if steps:
        axes.step([*numbers, last], [*values, values[-1]], where="post", color=GOOD, linewidth=2, label="best so far")


def _draw_folds(axes: "Axes", trials: Sequence[Trial]) -> None:
    for place, (_, fold) in enumerate(groupby(sorted(trials, key=lambda t: (t.fold, t.trial)), lambda t: t.fold)):
        steps = best_so_far(list(fold))
        label = "one example left out" if place == 0 else "_"
        numbers, values = [number for number, _ in steps], [value for _, value in steps]
        axes.step(numbers, values, where="post", color=MUTED, alpha=0.45, linewidth=0.8, label=label, zorder=1)


def _dots(axes: "Axes", trials: Sequence[Trial], top: float, mark: str, colour: str, label: str) -> None:
    inside = [trial for trial in trials if trial.objective <= top]
    if inside:
        numbers, values = [trial.trial for trial in inside], [trial.objective for trial in inside]
        size = 3.2 if mark == "o" else 5
        axes.plot(numbers, values, mark, color=colour, markersize=size, label=label, alpha=0.8, linestyle="none")


def _ring(axes: "Axes", kept: Sequence[Trial], chosen: Chosen) -> None:
    for trial in kept:
        if trial.trial == chosen.trial:
            ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.8, "linestyle": "none"}
            axes.plot(trial.trial, trial.objective, "o", color=BAD, label="chosen", zorder=5, **ring)  # type: ignore[arg-type]


def _limit(axes: "Axes", kept: Sequence[Trial], top: float) -> None:
    least = min(trial.objective for trial in kept)
    margin = 0.06 * (top - least) or 0.05 * abs(top) or 0.05
    axes.set_ylim(least - margin, top + margin)
    if above := sum(trial.objective > top for trial in kept):
        text = f"{above} {'trial' if above == 1 else 'trials'} above"
        axes.text(1, 0.99, text, transform=axes.transAxes, ha="right", va="top", color=MUTED, fontsize=8)


def _what(objective: str) -> str:
    if objective == "loss":
        return "loss + penalty, nats a token"
    return "wrong answers (share) + penalty"
