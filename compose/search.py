"""The search: ask, mix, score, tell, recommend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from loraloom.compose.optimizers import OPTIMIZERS, Optimizer
from loraloom.compose.scoring import Weights
from loraloom.compose.spec import Optimizer as Settings
from loraloom.compose.trials import Trial


class Evaluate(Protocol):
    """Scores candidates of one kind (`Trial.kind`), and keeps what came of them."""

    def __call__(self, kind: str, population: Sequence[Weights], incumbent: float | None = None) -> list[Trial]:
        """
        Args:
            population: the candidates.
            incumbent: give up those whose objective cannot be below it; None scores all to the end.
        """
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        best: the trial with the smallest objective; of equals the first, so a baseline before what is no better.
        single: the best adapter alone, and which it is.
        weights: of the best trial.
    """

    best: Trial
    weights: Weights
    single: int


def search(evaluate: Evaluate, adapters: int, settings: Settings, mirrored: bool) -> Found:
    """Find weights of which the objective is small.

    Args:
        evaluate: scores a population.
        adapters: how many weights a candidate has.
        settings: the optimiser, its budget, seed and bounds.
        mirrored: whether w and -w are the same.
    """
    tried: list[tuple[Weights, Trial]] = []

    def attempt(kind: str, population: list[Weights], incumbent: float | None = None) -> list[Trial]:
        trials = evaluate(kind, population, incumbent)
        tried.extend(zip(population, trials, strict=True))
        return trials

    for kind, population in baselines(adapters):
        attempt(kind, population)
    single = _first_best([trial for _, trial in tried if trial.kind == "single"])
    optimizer = _optimizer(settings, adapters, _best(tried)[0], single if mirrored else None)
    for count in _rounds(settings):
        population = [optimizer.ask() for _ in range(count)]
        incumbent = _best(tried)[1].objective if settings.early_stop else None
        for weights, trial in zip(population, attempt("search", population, incumbent), strict=True):
            optimizer.tell(weights, trial.objective)
    attempt("recommended", [optimizer.recommend()])
    weights, best = _best(tried)
    return Found(best, weights, single)


def baselines(adapters: int) -> Iterator[tuple[str, list[Weights]]]:
    """What a composition has to beat: nothing, each adapter alone, and all with the same weight, 1/n."""
    yield "none", [(0.0,) * adapters]
    yield "single", [tuple(float(each == one) for each in range(adapters)) for one in range(adapters)]
    yield "mean", [(1 / adapters,) * adapters]


def _optimizer(settings: Settings, adapters: int, best: Weights, anchor: int | None) -> Optimizer:
    """The optimiser, told where to look. The adapter `anchor` gets no negative weight: that is half of the space."""
    low, high = ([bound] * adapters for bound in settings.bounds)
    if anchor is not None and settings.break_symmetry:
        low[anchor] = 0.0
    start = best if settings.start == "best" else (0.0,) * adapters
    inside = [min(max(weight, below), above) for weight, below, above in zip(start, low, high, strict=True)]
    return Optimizer(settings.name, low, high, inside, settings.seed, settings.budget)


def _rounds(settings: Settings) -> Iterator[int]:
    """How many candidates are asked for at once, until the budget is spent."""
    left = settings.budget
    while left:
        count = min(left, OPTIMIZERS[settings.name].workers)
        left -= count
        yield count


def _best(tried: Sequence[tuple[Weights, Trial]]) -> tuple[Weights, Trial]:
    """Of the trials that were scored to the end."""
    return min((each for each in tried if not each[1].bound), key=_objective)


def _objective(tried: tuple[Weights, Trial]) -> float:
    return tried[1].objective


def _first_best(trials: Sequence[Trial]) -> int:
    return min(range(len(trials)), key=lambda each: trials[each].objective)
