"""Medians with confidence intervals.

What is compared is measured in turns, in one run: so a slow minute of the machine slows both sides of a pair, and
cancels out of their ratio or difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A median, and its percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Attributes:
        value: the samples' median.
        low, high: the ends of the interval, at `CONFIDENCE`.
    """

    value: float
    low: float
    high: float


def median(samples: Sequence[float]) -> Estimate:
    """The samples' median. The same samples give the same interval: the resampling is seeded.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("a median needs at least one sample")
    values = np.asarray(samples, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    medians = np.median(values[drawn], axis=1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(medians, (tail, 100 - tail))
    return Estimate(float(np.median(values)), float(low), float(high))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """The median of `ours[i] - theirs[i]`; raises `ValueError` unless they pair up."""
    return median([our - their for our, their in zip(ours, theirs, strict=True)])


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """The median of `ours[i] / theirs[i]`; raises `ValueError` unless they pair up."""
    return median([our / their for our, their in zip(ours, theirs, strict=True)])
