"""The verdict: whether a composition is worth anything, from what each system did on each held-out example.

"better" takes that the composition beats each of `RIVALS`, every time with an interval above zero and a flip test below
5%: a claim that needs all of several tests keeps the level of one (intersection-union, Berger 1982,
https://doi.org/10.1080/00401706.1982.10487790), however the tests hang together.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from loraloom.compose.result import Comparison, Measured, System, Verdict
from loraloom.compose.statistics import flip_p, interval

if TYPE_CHECKING:
    from loraloom.compose.statistics import Vector

RIVALS: tuple[System, ...] = ("nothing", "best_single", "mean")
"""What a composition has to beat. Examples in the prompt are no rival: they cost tokens with every request."""

LEVEL = 0.05
ENOUGH = 5
"""Examples from which on a flip test can fall below `LEVEL`: 1 of 2 ** 5."""
WORTH = 0.01
"""A gain worth having: a hundredth of a nat a token, or one answer in a hundred."""

_NAMES: Mapping[System, str] = MappingProxyType(
    {
        "nothing": "the base model alone",
        "best_single": "the best single adapter",
        "mean": "the uniform mean of all adapters",
        "in_context": "the base model with examples in its prompt",
    }
)


def scored(values: Sequence[Measured], seed: int = 0) -> tuple[float, float, float]:
    """A system's score on the examples.

    Args:
        values: finite, of at least one example.
        seed: of the bootstrap.

    Returns:
        The score, and the lower and upper end of its 95% interval: nats a token, or the share of right answers.
    """
    value, weight = _columns(values)
    low, high = interval(value, weight, seed)
    return float(value.sum() / weight.sum()), low, high


def compared(
    composition: Sequence[Measured], other: Sequence[Measured], higher_is_better: bool, seed: int = 0
) -> Comparison:
    """The composition against another system on the same examples.

    Args:
        composition: finite, of at least one example.
        other: of the same examples in the same order, with the same weights.
        higher_is_better: for shares of right answers; not for losses.
        seed: of the bootstrap and the flips.

    Returns:
        A positive gain if the composition is better.
    """
    ours, weights = _columns(composition)
    theirs, same = _columns(other)
    assert weights.tolist() == same.tolist(), "both answered the same examples"
    differences = ours - theirs if higher_is_better else theirs - ours
    low, high = interval(differences, weights, seed)
    return Comparison(float(differences.sum() / weights.sum()), low, high, flip_p(differences, seed))


def is_better(comparison: Comparison) -> bool:
    """Whether the composition's gain is more than chance."""
    return comparison.low > 0 and comparison.p <= LEVEL


def judged(
    comparisons: Mapping[System, Comparison],
    examples: int,
    worth: float = WORTH,
    objective: str = "loss",
    best_single: str = "",
) -> Verdict:
    """What follows from the comparisons.

    Args:
        comparisons: with at least each of `RIVALS`.
        examples: held-out examples that they rest on.
        worth: the least gain worth having.
        objective: that the gains are measured by, as in the job's description.
        best_single: which adapter that is, to name it in the reason.

    Returns:
        "not better" if the gain over one rival is surely less than `worth`, "better" if every gain is more than
        chance, else "undecidable"; fewer than `ENOUGH` examples decide only what is the same on all of them.
    """
    assert examples >= 1
    words = _Words(examples, objective, best_single)
    rivals = {rival: comparisons[rival] for rival in RIVALS}
    closest = min(rivals, key=lambda rival: rivals[rival].gain)
    if same := next((rival for rival in RIVALS if _is_same(rivals[rival])), None):
        return Verdict("not better", examples, words.same(same))
    if examples < ENOUGH:
        return Verdict("undecidable", examples, words.too_few(closest, rivals[closest]))
    hopeless = min(rivals, key=lambda rival: rivals[rival].high)
    if _rules_out(rivals[hopeless], worth):
        return Verdict("not better", examples, words.no_gain(hopeless, rivals[hopeless], worth))
    if all(map(is_better, rivals.values())):
        return Verdict("better", examples, words.gain(closest, rivals[closest], comparisons.get("in_context")))
    doubtful = min((rival for rival in RIVALS if not is_better(rivals[rival])), key=lambda rival: rivals[rival].gain)
    return Verdict("undecidable", examples, words.doubt(doubtful, rivals[doubtful]))


def _rules_out(comparison: Comparison, worth: float) -> bool:
    """Whether the gain is surely less; not by an end of exactly zero, which is that of ties and no more: among a few
    right or wrong answers none happens to be gained, and the bootstrap knows of none.
    """
    return comparison.high < worth and comparison.high != 0


def _is_same(comparison: Comparison) -> bool:
    return comparison.gain == comparison.low == comparison.high == 0


def _columns(values: Sequence[Measured]) -> "tuple[Vector, Vector]":
    import numpy as np

    assert values, "there is at least one example"
    return np.array([each.value for each in values], float), np.array([each.weight for each in values], float)


class _Words:
    """Reasons, in one sentence each."""

    def __init__(self, examples: int, objective: str, best_single: str) -> None:
        self._examples = "1 held-out example" if examples == 1 else f"{examples} held-out examples"
        self._loss = objective == "loss"
        self._best_single = best_single

    def same(self, rival: System) -> str:
        return f"On {self._examples} the composition does exactly as well as {self._rival(rival)}{self._note(rival)}."

    def too_few(self, rival: System, comparison: Comparison) -> str:
        return (
            f"{self._examples} cannot rule out chance, at least {ENOUGH} are needed and more are better: "
            f"so far {self._difference(rival, comparison)}{self._note(rival)}."
        )

    def gain(self, rival: System, comparison: Comparison, in_context: Comparison | None) -> str:
        return f"{self._finding(rival, comparison)}{self._in_context(in_context)}."

    def no_gain(self, rival: System, comparison: Comparison, worth: float) -> str:
        return f"{self._finding(rival, comparison)}, so a gain of {self._amount(worth)} or more can be ruled out."

    def doubt(self, rival: System, comparison: Comparison) -> str:
        return f"{self._finding(rival, comparison)}, which may be chance (p = {comparison.p:.2g})."

    def _finding(self, rival: System, comparison: Comparison) -> str:
        ends = f"{self._number(comparison.low)} to {self._number(comparison.high)}"
        note = self._note(rival, f"95% interval of the gain {ends}")
        return f"On {self._examples} {self._difference(rival, comparison)}{note}"

    def _difference(self, rival: System, comparison: Comparison) -> str:
        up = (comparison.gain > 0) != self._loss
        what = "loss" if self._loss else "share of right answers"
        if comparison.gain == 0:
            return f"the composition's {what} is that of {self._rival(rival)}"
        where = "above" if up else "below"
        return f"the composition's {what} is {self._amount(abs(comparison.gain))} {where} that of {self._rival(rival)}"

    def _in_context(self, comparison: Comparison | None) -> str:
        if comparison is None or is_better(comparison):
            return ""
        verb = "may do" if comparison.gain > 0 else "does"
        return f"; {_NAMES['in_context']} {verb} as well"

    def _rival(self, rival: System) -> str:
        return _NAMES[rival]

    def _note(self, rival: System, more: str = "") -> str:
        name = self._best_single if rival == "best_single" else ""
        parts = [part for part in (name, more) if part]
        return f" ({'; '.join(parts)})" if parts else ""

    def _amount(self, value: float) -> str:
        return f"{self._number(value)} {'nats a token' if self._loss else 'percentage points'}"

    def _number(self, value: float) -> str:
        return _short(value if self._loss else 100 * value, 2 if self._loss else 1)


def _short(value: float, digits: int) -> str:
    """With so many digits after the point, or two that count where those would say zero."""
    text = f"{value:.{digits}f}"
    return text if float(text) or not value else f"{value:.2g}"
