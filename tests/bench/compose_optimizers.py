"""Which optimiser finds good weights with few evaluations: the experiment behind `compose`'s default.

For each of three pools about 500 candidates are scored by the model itself. A Gaussian process fitted to them stands
in for the model while every optimiser searches with many seeds and three budgets; the best three then search for real.
What was scored is kept, so that a second run begins where the first ended.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from loraloom.adapters.normal import normalise
from loraloom.compose.encoder import encoder_of
from loraloom.compose.examples import Example, Turn
from loraloom.compose.objective import Question, Task
from loraloom.compose.optimizers import OPTIMIZERS
from loraloom.compose.scorers.torch_scorer import TorchScorer, load_model
from loraloom.compose.scoring import Weights
from loraloom.compose.search import search
from loraloom.compose.spec import Optimizer
from loraloom.compose.trials import Trial
from loraloom.demo.catalog import demo_adapters
from loraloom.demo.model import prepare
from tests.bench.compose_speed import adapters as pairs
from tests.bench.outcome import Outcome, Table
from tests.bench.registry import Benchmark

BUDGETS = (40, 100, 400)
BOUND, L1 = 1.5, 0.05
EVALUATIONS, FEW_EVALUATIONS = 500, 40
SEEDS, FEW_SEEDS = 20, 2
REAL_SEEDS, FINALISTS = 3, 4
AT_ONCE = 10

Measure: TypeAlias = Callable[[Sequence[Weights]], list[float]]
"""The losses of candidates, in nats a token."""


@dataclass(frozen=True)
class Landscape:
    """A pool and examples, whose best weights are looked for.

    Attributes:
        name: in a few words.
        method: how the adapters are mixed.
        pool: their folders.
        asked: (prompt, answer) of each example.
    """

    name: str
    method: str
    pool: tuple[Path, ...]
    asked: tuple[tuple[str, str], ...]


def landscapes(folder: Path) -> tuple[Landscape, ...]:
    """Two tasks at once; a task that no adapter was trained for; twenty adapters composed as in the paper."""
    given = {each.name: each.examples for each in demo_adapters()}
    eight = normals(folder / "normals")
    both = (*given["name"][:3], *given["units"][:3])
    return (
        Landscape("two tasks, 8 adapters, exact", "exact", eight, both),
        Landscape("a new task, 8 adapters, exact", "exact", eight, NEW),
        Landscape("two tasks, 20 adapters, lorahub", "lorahub", tuple(pairs(folder / "pairs")), both),
    )


NEW = (
    ("Write this time in figures: half past three in the afternoon", "15:30"),
    ("Write this time in figures: ten past eight in the morning", "08:10"),
    ("Write this time in figures: a quarter to six in the evening", "17:45"),
    ("Write this time in figures: twenty past one in the afternoon", "13:20"),
    ("Write this time in figures: five to eleven in the morning", "10:55"),
    ("Write this time in figures: nine in the evening", "21:00"),
)


def normals(folder: Path) -> tuple[Path, ...]:
    """The demo's adapters in normal form."""
    for adapter in demo_adapters():
        out = folder / adapter.name
        if not out.exists():
            out.mkdir(parents=True)
            normalise(adapter.folder, out)
    return tuple(folder / adapter.name for adapter in demo_adapters())


@contextmanager
def measured(landscape: Landscape, base: Path, model: Any) -> Iterator[Measure]:
    """The model's own losses; of a candidate that comes again, those of the first time."""
    encoder = encoder_of(str(base), "chat")
    examples = [Example((Turn("user", prompt),), answer) for prompt, answer in landscape.asked]
    task = Task("loss", tuple(Question((encoder.row(each, each.answer),)) for each in examples))

    known: dict[Weights, float] = {}

    def measure(population: Sequence[Weights]) -> list[float]:
        new = [weights for weights in dict.fromkeys(population) if weights not in known]
        if new:
            known.update(zip(new, map(task.loss, scorer.score(new, task.rows)), strict=True))
        return [known[weights] for weights in population]

    with closing(TorchScorer(model, landscape.pool, landscape.method)) as scorer:
        yield measure


def candidates(adapters: int, count: int, seed: int = 0) -> list[Weights]:
    """Where the landscape is looked at: everywhere, near zero, and where few adapters count."""
    random = np.random.default_rng(seed)
    points = [np.zeros(adapters), *np.eye(adapters), np.full(adapters, 1 / adapters)]
    while len(points) < count:
        few = random.random(adapters) < min(1.0, 3 / adapters)
        points += [
            random.uniform(-BOUND, BOUND, adapters),
            random.normal(0, 0.3, adapters),
            random.uniform(-0.5, 1.0, adapters) * few,
            random.dirichlet(np.ones(adapters)) * random.uniform(0.5, 2),
        ]
    return [tuple(np.clip(point, -BOUND, BOUND).tolist()) for point in points[:count]]


def logged(path: Path, wanted: Sequence[Weights], measure: Measure) -> list[float]:
    """The losses of the wanted candidates: from the file as far as it goes, then measured and added to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert [tuple(each["weights"]) for each in known] == list(wanted[: len(known)]), f"{path} is of another experiment"
    losses = [each["loss"] for each in known]
    with path.open("a") as file:
        for start in range(len(known), len(wanted), AT_ONCE):
            population = wanted[start : start + AT_ONCE]
            found = measure(population)
            losses += found
            lines = [json.dumps({"weights": w, "loss": loss}) for w, loss in zip(population, found, strict=True)]
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
    return losses


class Surrogate:
    """A Gaussian process that stands in for the model.

    Attributes:
        correlation: Spearman's, between what it predicts for points that it was not fitted to and what was measured.
    """

    def __init__(self, points: Sequence[Weights], losses: Sequence[float]) -> None:
        from scipy.stats import spearmanr
        from sklearn.model_selection import KFold

        x, y = np.array(points), np.log(losses)
        self._kernel = _fitted(x, y, None).kernel_
        predicted = np.empty_like(y)
        for train, test in KFold(5, shuffle=True, random_state=0).split(x):
            predicted[test] = _fitted(x[train], y[train], self._kernel).predict(x[test])
        self.correlation = float(spearmanr(predicted, y).statistic)
        self._process = _fitted(x, y, self._kernel)

    def __call__(self, population: Sequence[Weights]) -> list[float]:
        """The losses that it expects."""
        return [float(value) for value in np.exp(self._process.predict(np.array(population)))]


def _fitted(x: Any, y: Any, kernel: Any) -> Any:
    """Fitted to points and logarithms of losses; with a kernel, that kernel as it is."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    fresh = ConstantKernel(1.0) * RBF(np.ones(x.shape[1]), (0.05, 50.0)) + WhiteKernel(1e-3, (1e-8, 1.0))
    optimizer = "fmin_l_bfgs_b" if kernel is None else None
    return GaussianProcessRegressor(kernel or fresh, normalize_y=True, optimizer=optimizer, random_state=0).fit(x, y)


def best_of(measure: Measure, adapters: int, method: str, settings: Optimizer) -> float:
    """The objective at which a search ends."""

    def evaluate(kind: str, population: Sequence[Weights], incumbent: float | None = None) -> list[Trial]:
        losses = measure(population)
        penalties = [L1 * float(np.abs(weights).mean()) for weights in population]
        return [
            Trial(0, 0, kind, {}, loss, loss + penalty, False, 0.0)
            for loss, penalty in zip(losses, penalties, strict=True)
        ]

    return search(evaluate, adapters, settings, method == "lorahub").best.objective


def compared(
    surrogate: Measure, landscape: Landscape, budgets: Sequence[int], seeds: int
) -> dict[str, list[list[float]]]:
    """[budgets, seeds]: the objective at which each optimiser ends."""
    by_budget = [ended(surrogate, landscape, list(OPTIMIZERS), budget, range(seeds)) for budget in budgets]
    return {name: [each[name] for each in by_budget] for name in OPTIMIZERS}


def ended(
    measure: Measure, landscape: Landscape, names: Sequence[str], budget: int, seeds: Sequence[int]
) -> dict[str, list[float]]:
    """[seeds]: the objective at which each optimiser ends."""
    settings = {name: [Optimizer(name=name, budget=budget, seed=seed) for seed in seeds] for name in names}
    return {
        name: [best_of(measure, len(landscape.pool), landscape.method, each) for each in several]
        for name, several in settings.items()
    }


def ranks(found: Sequence[Mapping[str, Sequence[Sequence[float]]]]) -> dict[str, float]:
    """Each optimiser's mean rank over all landscapes and budgets, by the mean of its seeds; 1 is the best."""
    from scipy.stats import rankdata

    means = np.array([[np.mean(each[name], axis=1) for name in OPTIMIZERS] for each in found])
    places = rankdata(means, axis=1).mean(axis=(0, 2))
    return dict(zip(OPTIMIZERS, places.tolist(), strict=True))


def run(folder: Path, full: bool) -> Outcome:
    """Measure, fit, compare, and try the best for real."""
    base = prepare()
    model, here = load_model(base, "cpu"), folder / "compose_optimizers"
    count, seeds, budgets = (EVALUATIONS, SEEDS, BUDGETS) if full else (FEW_EVALUATIONS, FEW_SEEDS, BUDGETS[:1])
    found, fits, real, given = [], {}, [], landscapes(here)
    for number, landscape in enumerate(given):
        points = candidates(len(landscape.pool), count)
        with measured(landscape, base, model) as measure:
            losses = logged(here / f"{number}-{count}.jsonl", points, measure)
        surrogate = Surrogate(points, losses)
        fits[landscape.name] = surrogate.correlation
        found.append(compared(surrogate, landscape, budgets, seeds))
    places = ranks(found)
    finalists = sorted(places, key=places.__getitem__)[:FINALISTS]
    for landscape in given:
        tries = range(REAL_SEEDS if full else 1)
        with measured(landscape, base, model) as measure:
            real.append(ended(measure, landscape, finalists, BUDGETS[0], tries))
    return outcome(given, budgets, fits, found, places, real)


def outcome(
    given: Sequence[Landscape],
    budgets: Sequence[int],
    fits: Mapping[str, float],
    found: Sequence[Mapping[str, Sequence[Sequence[float]]]],
    places: Mapping[str, float],
    real: Sequence[Mapping[str, Sequence[float]]],
) -> Outcome:
    """What it comes to."""
    head = ("optimizer", "mean rank", *(f"{each.name}, {budget}" for each in given for budget in budgets))
    rows = [
        (name, f"{places[name]:.2f}", *(_spread(values) for each in found for values in each[name]))
        for name in sorted(places, key=places.__getitem__)
    ]
    for name in real[0]:
        cells = [_spread(each[name]) if place == 0 else "" for each in real for place, _ in enumerate(budgets)]
        rows.append((f"{name}, the model itself", "", *cells))
    return Outcome(
        runs=len(next(iter(found[0].values()))[0]),
        parameters={"budgets": list(budgets), "bounds": BOUND, "l1": L1, "pools": [each.name for each in given]},
        results={"correlation": dict(fits), "mean_rank": dict(places)},
        samples={"surrogate": [dict(each) for each in found], "model": [dict(each) for each in real]},
        table=Table(head, tuple(rows)),
        notes=(
            "objective at the end, mean ± standard deviation over seeds, on the surrogate unless told; the number "
            "after a pool's name is the budget",
            *(
                f"surrogate of {name}: rank correlation {value:.3f} with points left out"
                for name, value in fits.items()
            ),
        ),
    )


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}"


BENCHMARK = Benchmark(
    "compose_optimizers", "which optimiser finds good weights with few evaluations", run, by_default=False
)
