"""Whether something grows over time."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """The trend, in units of the values by unit of time: the median of the slopes between all pairs of points.

    A few values far off do not move it (Theil, 1950; Sen, 1968). Raises `ValueError` with fewer than two times.
    """
    x, y = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    first, second = np.triu_indices(len(x), k=1)
    apart = x[second] - x[first]
    if not apart.any():
        raise ValueError("a trend needs values at two times at least")
    return float(np.median((y[second] - y[first])[apart > 0] / apart[apart > 0]))


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """How much the trend of the second half of the time adds within that half."""
    _, later = _halves(times, values)
    half_times, half_values = zip(*later, strict=True)
    return slope(half_times, half_values) * float(half_times[-1] - half_times[0])


def rise(times: Sequence[float], values: Sequence[float]) -> float:
    """How far the highest value of the second half of the time lies above that of the first half."""
    highest = [max(value for _, value in half) for half in _halves(times, values)]
    return highest[1] - highest[0]


_Points: TypeAlias = list[tuple[float, float]]


def _halves(times: Sequence[float], values: Sequence[float]) -> tuple[_Points, _Points]:
    middle = (times[0] + times[-1]) / 2
    points = list(zip(times, values, strict=True))
    return [point for point in points if point[0] < middle], [point for point in points if point[0] >= middle]
