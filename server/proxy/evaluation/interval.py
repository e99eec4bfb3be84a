"""Intervals of 95% for shares of right answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Share:
    """A share from 0 to 1, and the ends of its interval."""

    value: float
    low: float
    high: float


def wilson(right: int, count: int) -> Share:
    """The share of `right` in `count`, at least one, with Wilson's score interval (1927, doi:10.2307/2276774)."""
    value, spread = right / count, Z * Z / count
    middle = value + spread / 2
    half = Z * math.sqrt(value * (1 - value) / count + spread / (4 * count))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return Share(value, min(value, max(0.0, low)), max(value, min(1.0, high)))


def mean(shares: Sequence[Share]) -> Share:
    """The mean of independent shares, at least one, its interval from theirs.

    As Zou and Donner have it (2008, doi:10.1002/sim.3095). It speaks of other prompts of these tasks, not of others.
    """
    count = len(shares)
    value = sum(share.value for share in shares) / count
    down = math.sqrt(sum((share.value - share.low) ** 2 for share in shares)) / count
    up = math.sqrt(sum((share.high - share.value) ** 2 for share in shares)) / count
    return Share(value, max(0.0, value - down), min(1.0, value + up))
