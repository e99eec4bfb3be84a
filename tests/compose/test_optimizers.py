"""nevergrad behind ask, tell and recommend."""

import pytest

from loraloom.compose.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS, Optimizer
from loraloom.compose.scoring import Weights

BEST = (0.7, -0.4, 0.0)


def distance(weights: Weights) -> float:
    return sum((weight - best) ** 2 for weight, best in zip(weights, BEST, strict=True))


def run(name: str, seed: int = 0, budget: int = 40) -> tuple[list[Weights], Weights]:
    optimizer = Optimizer(name, [-1.5] * 3, [1.5] * 3, [0.0] * 3, seed, budget)
    asked: list[Weights] = []
    while len(asked) < budget:
        population = [optimizer.ask() for _ in range(min(OPTIMIZERS[name].workers, budget - len(asked)))]
        for weights in population:
            optimizer.tell(weights, distance(weights))
        asked += population
    return asked, optimizer.recommend()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_comes_nearer_and_does_the_same_again(name: str) -> None:
    asked, recommended = run(name)
    assert min(map(distance, asked)) < 0.5 * distance((0, 0, 0))
    assert distance(recommended) < distance((0, 0, 0))
    assert all(-1.5 <= weight <= 1.5 for weights in [*asked, recommended] for weight in weights)
    assert run(name) == (asked, recommended)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"NGOpt", "Cobyla"}))
def test_the_seed_matters(name: str) -> None:
    assert run(name, seed=1)[0] != run(name, seed=2)[0]


def test_bounds_of_their_own_hold() -> None:
    optimizer = Optimizer("CMA", [0.0, -1.5], [1.5, 0.1], [0.5, 0.0], 0, 60)
    for _ in range(60):
        weights = optimizer.ask()
        assert 0 <= weights[0] <= 1.5
        assert -1.5 <= weights[1] <= 0.1
        optimizer.tell(weights, weights[0] - weights[1])


def test_equal_candidates_are_told_apart() -> None:
    """COBYLA may ask for the same point twice."""
    optimizer = Optimizer("RandomSearch", [-1.0], [1.0], [0.0], 0, 10)
    for _ in range(3):
        weights = optimizer.ask()
        optimizer.tell(weights, 1.0)
    with pytest.raises(IndexError):
        optimizer.tell(weights, 1.0)


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT_OPTIMIZER in OPTIMIZERS
