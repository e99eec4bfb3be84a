"""The experiment on optimisers, without the model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loraloom.compose.optimizers import OPTIMIZERS
from loraloom.compose.scoring import Weights
from loraloom.compose.spec import Optimizer
from tests.bench.compose_optimizers import (
    Landscape,
    Surrogate,
    best_of,
    candidates,
    compared,
    logged,
    outcome,
    ranks,
)

BEST = np.array([0.7, 0.5, 0.0])
BOWL = Landscape("bowl", "exact", (Path("a"), Path("b"), Path("c")), (("prompt", "answer"),))


def bowl(population: Sequence[Weights]) -> list[float]:
    return [0.5 + float(((np.array(weights) - BEST) ** 2).sum()) for weights in population]


def test_candidates_begin_with_the_baselines_and_keep_the_bounds() -> None:
    points = candidates(3, 60)
    assert points[:5] == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1 / 3, 1 / 3, 1 / 3)]
    assert len(points) == len(set(points)) == 60
    assert all(abs(weight) <= 1.5 for point in points for weight in point)
    assert candidates(3, 60) == points
    assert candidates(3, 30) == points[:30]


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    asked: list[Weights] = []

    def measure(population: Sequence[Weights]) -> list[float]:
        asked.extend(population)
        return bowl(population)

    points, path = candidates(3, 25), tmp_path / "log.jsonl"
    first = logged(path, points[:12], measure)
    losses = logged(path, points, measure)
    assert losses == bowl(points)
    assert losses[:12] == first
    assert asked == points
    with pytest.raises(AssertionError, match="of another experiment"):
        logged(path, candidates(3, 25, seed=1), measure)


def test_a_surrogate_predicts_what_it_has_not_seen() -> None:
    points = candidates(3, 120)
    surrogate = Surrogate(points, bowl(points))
    assert surrogate.correlation > 0.95
    fresh = candidates(3, 200, seed=1)[150:]
    assert np.corrcoef(surrogate(fresh), bowl(fresh))[0, 1] > 0.95


def test_more_candidates_find_more() -> None:
    few, many = (best_of(bowl, 3, "exact", Optimizer(name="CMA", budget=budget)) for budget in (5, 100))
    assert 0.5 < many < few


def test_ranks_and_the_table() -> None:
    found = compared(bowl, BOWL, (10, 30), 2)
    assert set(found) == set(OPTIMIZERS)
    assert all(len(values) == 2 for values in found.values())
    places = ranks([found])
    assert sum(places.values()) == pytest.approx(len(OPTIMIZERS) * (len(OPTIMIZERS) + 1) / 2)
    best = min(places, key=places.__getitem__)
    text = str(outcome([BOWL], (10, 30), {"bowl": 0.99}, [found], places, [{best: [0.5, 0.6]}]).table)
    lines = text.splitlines()
    assert lines[2].startswith(best)
    assert lines[-1].startswith(f"{best}, the model itself")
    assert "0.5500 ± 0.0500" in lines[-1]
