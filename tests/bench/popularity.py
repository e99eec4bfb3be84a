"""How often requests ask for which adapter."""

from collections.abc import Sequence

import numpy as np


def uniform(count: int) -> list[float]:
    """Shares of `count` adapters that are asked for equally often."""
    return [1 / count] * count


def zipf(count: int) -> list[float]:
    """Shares by Zipf's law with exponent 1: the adapter of rank k gets a share of 1/k of the first one's."""
    weights = 1 / np.arange(1, count + 1)
    return list(map(float, weights / weights.sum()))


def drawn(shares: Sequence[float], count: int, seed: int) -> list[int]:
    """The places of the adapters that `count` requests ask for; the same seed draws the same."""
    return list(map(int, np.random.default_rng(seed).choice(len(shares), size=count, p=shares)))
