"""What proxy-tuning gains in accuracy, and the share of the gap that it closes.

That is (proxy - large) / (tuned large - large).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

MIN_GAP = 0.05
"""Below so many points, divided by 100, the share is more noise than share."""
RESAMPLES = 4000
_LOST = 0.025
"""The part of all draws that may have no gap; where it is more, an interval would say nothing."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Which answers to the same questions of one task were right, of the three that the gap is about."""

    large: Sequence[bool]
    proxy: Sequence[bool]
    tuned: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Closed:
    """A share of the gap.

    Attributes:
        gap: what direct tuning gains, as a share of all questions.
        share: of it; None where there is no gap to speak of. It may be above 1, or below 0.
        low, high: ends of its 95% interval; None where that says nothing.
    """

    gap: float
    share: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Gain:
    """What one arm gains over another, as a share of all questions, and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def gained(tasks: Sequence[tuple[Sequence[bool], Sequence[bool]]], seed: int = 0) -> Gain:
    """The mean over tasks, at least one, of what the second answers to the same questions gain over the first.

    The interval is the percentile bootstrap over questions, drawn together with both answers, within each task.
    """
    import numpy as np

    gains = [np.asarray([after], dtype=float) - np.asarray([before], dtype=float) for before, after in tasks]
    rng = np.random.default_rng(seed)
    drawn = np.mean([_resampled(each, rng) for each in gains], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Gain(float(np.mean([each.mean() for each in gains])), float(low), float(high))


def closed(tasks: Sequence[Rights], seed: int = 0) -> Closed:
    """How much of the mean gap over tasks, at least one, is closed by the mean over tasks.

    The interval is the percentile bootstrap over questions, drawn together with all three answers, within each task.
    """
    import numpy as np

    gains = [_gains(task) for task in tasks]
    won, gap = np.mean([each.mean(axis=1) for each in gains], axis=0)
    if gap < MIN_GAP:
        return Closed(float(gap), None)
    rng = np.random.default_rng(seed)
    drawn = np.mean([_resampled(each, rng) for each in gains], axis=0)
    kept = drawn[:, drawn[1] > 0]
    if kept.shape[1] < (1 - _LOST) * RESAMPLES:
        return Closed(float(gap), float(won / gap))
    low, high = np.quantile(kept[0] / kept[1], [0.025, 0.975])
    return Closed(float(gap), float(won / gap), float(low), float(high))


def _gains(task: Rights) -> "NDArray[numpy.float64]":
    """[2, questions]: what the proxy gains over the large model, and what direct tuning does."""
    import numpy as np

    large, proxy, tuned = (np.asarray(each, dtype=float) for each in (task.large, task.proxy, task.tuned))
    return np.stack([proxy - large, tuned - large])


def _resampled(gains: "NDArray[numpy.float64]", rng: "numpy.random.Generator") -> "NDArray[numpy.float64]":
    """[rows, resamples]: the rows' means over questions drawn with repetition, by how often each kind is drawn."""
    import numpy as np

    count = gains.shape[1]
    kinds, numbers = np.unique(gains, axis=1, return_counts=True)
    drawn = rng.multinomial(count, numbers / count, size=RESAMPLES)
    return np.asarray(kinds @ drawn.T / count)
