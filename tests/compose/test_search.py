"""The search: its baselines, its budget, its best."""

from collections.abc import Sequence

import pytest

from loraloom.compose.scoring import Weights
from loraloom.compose.search import baselines, search
from loraloom.compose.spec import Optimizer
from loraloom.compose.trials import Trial

BEST = (0.7, 0.5, -0.2)


class Bowl:
    """`Evaluate` without a model; notes what it was asked."""

    def __init__(self, best: Weights = BEST, mirrored: bool = False) -> None:
        self.asked: list[tuple[str, Weights, float | None]] = []
        self._best = best
        self._mirrored = mirrored

    def __call__(self, kind: str, population: Sequence[Weights], incumbent: float | None = None) -> list[Trial]:
        trials = []
        for weights in population:
            value = self.value(weights)
            bound = incumbent is not None and value > incumbent + 1
            self.asked.append((kind, weights, incumbent))
            value = incumbent + 1 if bound else value  # type: ignore[operator]
            trials.append(Trial(len(self.asked), 0, kind, {}, value, value, bound, 0.0))
        return trials

    def value(self, weights: Weights) -> float:
        value = sum((weight - best) ** 2 for weight, best in zip(weights, self._best, strict=True))
        mirror = sum((weight + best) ** 2 for weight, best in zip(weights, self._best, strict=True))
        return min(value, mirror) if self._mirrored else value

    def of(self, kind: str) -> list[Weights]:
        return [weights for each, weights, _ in self.asked if each == kind]


def test_the_baselines_come_first_and_the_recommendation_last() -> None:
    bowl = Bowl()
    found = search(bowl, 3, Optimizer(budget=20), False)
    kinds = [kind for kind, _, _ in bowl.asked]
    assert kinds == ["none", *["single"] * 3, "mean", *["search"] * 20, "recommended"]
    assert [weights for _, weights, _ in bowl.asked[:5]] == [
        *((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
        (1 / 3, 1 / 3, 1 / 3),
    ]
    assert found.single == 0
    assert bowl.value(found.weights) == found.best.objective == min(bowl.value(each) for _, each, _ in bowl.asked)
    assert found.best.objective < 0.2


def test_a_baseline_wins_over_what_is_no_better() -> None:
    found = search(Bowl(best=(0.0, 1.0, 0.0)), 3, Optimizer(budget=12), False)
    assert (found.best.kind, found.weights, found.single) == ("single", (0, 1, 0), 1)


def test_it_starts_at_the_best_baseline_or_at_zero() -> None:
    near, far = Bowl(best=(0.0, 1.0, 0.0)), Bowl(best=(0.0, 1.0, 0.0))
    search(near, 3, Optimizer(name="Cobyla", budget=1, start="best"), False)
    search(far, 3, Optimizer(name="Cobyla", budget=1, start="zero"), False)
    assert near.of("search") == [(0, 1, 0)]
    assert far.of("search") == [(0, 0, 0)]


def test_the_start_lies_within_the_bounds() -> None:
    bowl = Bowl(best=(1.0, 0.0, 0.0))
    search(bowl, 3, Optimizer(name="Cobyla", budget=1, bounds=(-0.5, 0.5)), False)
    assert bowl.of("search") == [(0.5, 0, 0)]


@pytest.mark.parametrize("mirrored", [True, False])
def test_half_of_a_mirrored_space_is_searched(mirrored: bool) -> None:
    bowl = Bowl(mirrored=True)
    search(bowl, 3, Optimizer(name="RandomSearch", start="zero"), mirrored)
    assert any(weights[0] < 0 for weights in bowl.of("search")) is not mirrored
    assert any(weights[1] < 0 for weights in bowl.of("search"))


def test_both_halves_if_that_is_wanted() -> None:
    bowl = Bowl(mirrored=True)
    search(bowl, 3, Optimizer(name="RandomSearch", start="zero", break_symmetry=False), True)
    assert any(weights[0] < 0 for weights in bowl.of("search"))


def test_only_the_optimisers_candidates_are_given_up() -> None:
    bowl = Bowl()
    found = search(bowl, 3, Optimizer(budget=16), False)
    assert {kind for kind, _, incumbent in bowl.asked if incumbent is not None} == {"search"}
    assert not found.best.bound
    patient = Bowl()
    search(patient, 3, Optimizer(budget=16, early_stop=False), False)
    assert all(incumbent is None for _, _, incumbent in patient.asked)


def test_the_budget_is_kept_where_the_population_does_not_divide_it() -> None:
    bowl = Bowl()
    search(bowl, 3, Optimizer(name="CMA", budget=13), False)
    assert len(bowl.of("search")) == 13


def test_the_same_again() -> None:
    one, other = Bowl(), Bowl()
    assert search(one, 3, Optimizer(budget=20, seed=3), False) == search(other, 3, Optimizer(budget=20, seed=3), False)
    assert one.asked == other.asked


def test_baselines_of_two() -> None:
    assert list(baselines(2)) == [("none", [(0, 0)]), ("single", [(1, 0), (0, 1)]), ("mean", [(0.5, 0.5)])]
