"""LoRAHub's search, ours beside a port of the published loop: seconds a candidate, and what both end at.

Both get the same 20 adapters of rank 16, five examples, the paper's objective and bounds, and the same optimiser and
seed. They take turns, population by population, so that a slow minute of the machine slows both.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from loraloom.adapters.arithmetic.factors import Factors, Term
from loraloom.adapters.arithmetic.svd import svd
from loraloom.adapters.normal import normalise
from loraloom.adapters.weights import read_factors, write_factors
from loraloom.compose.encoder import encoder_of
from loraloom.compose.examples import Example, Turn
from loraloom.compose.optimizers import OPTIMIZERS, Optimizer
from loraloom.compose.scorers.torch_scorer import TorchScorer, load_model
from loraloom.compose.scoring import Row, RowScore, Weights
from loraloom.demo.catalog import demo_adapters
from loraloom.demo.model import prepare
from tests.bench.estimate import CONFIDENCE, RESAMPLES, Estimate
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.registry import Benchmark
from tests.compose.lorahub_port import BOUND, L1, Port

ADAPTERS, RANK, EXAMPLES = 20, 16, 5
SECOND = 0.7
"""The weight of the second adapter of a pair; the first has 1."""
TASKS = ("date", "home", "money", "name", "sql")
"""Where the examples come from, in turns: their prompts share nothing but the chat template's beginning."""
FASTER = 3
"""How many times faster than the port ours should be."""
WORSE = 0.01
"""How much larger than the port's our final objective may be, of it."""
PORT, OURS, STOPPING = "port", "ours", "ours, stopping early"

Shapes: TypeAlias = Mapping[str, tuple[int, int]]
"""[out_features, in_features] of each module, by its path."""
Evaluate: TypeAlias = Callable[[Sequence[Weights], float], list[float]]
"""The objectives of a population, given the smallest so far; what it is at least where a candidate is given up."""


@dataclass(frozen=True)
class Case:
    """One search: its optimiser, by name, and its budget."""

    optimizer: str
    budget: int
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.optimizer}, budget {self.budget}, seed {self.seed}"


@dataclass
class Search:
    """A search that goes on by one population at a time.

    Attributes:
        seconds: a candidate, of each population.
        best: the smallest objective so far.
    """

    case: Case
    evaluate: Evaluate
    seconds: list[float] = field(default_factory=list)
    best: float = float("inf")

    def __post_init__(self) -> None:
        bounds = [-BOUND] * ADAPTERS, [BOUND] * ADAPTERS
        self._optimizer = Optimizer(self.case.optimizer, *bounds, [0.0] * ADAPTERS, self.case.seed, self.case.budget)

    def step(self, count: int) -> None:
        """Try the next candidates, so many."""
        began = time.perf_counter()
        population = [self._optimizer.ask() for _ in range(count)]
        objectives = self.evaluate(population, self.best)
        for weights, objective in zip(population, objectives, strict=True):
            self._optimizer.tell(weights, objective)
        self.best = min(self.best, *objectives)
        self.seconds.append((time.perf_counter() - began) / count)


@dataclass(frozen=True)
class Ours:
    """Our scorer, as a search uses it."""

    scorer: TorchScorer
    rows: Sequence[Row]
    stops: bool

    def __call__(self, population: Sequence[Weights], best: float) -> list[float]:
        def stop(candidate: int, scores: Sequence[RowScore]) -> bool:
            return self.stops and self._objective(population[candidate], scores) >= best

        found = self.scorer.score(population, self.rows, stop)
        return [self._objective(*each) for each in zip(population, found, strict=True)]

    def _objective(self, weights: Weights, scores: Sequence[RowScore]) -> float:
        tokens = sum(len(row.answer) for row in self.rows)
        return sum(score.nll for score in scores) / tokens + L1 * sum(map(abs, weights)) / len(weights)


def run(folder: Path, full: bool) -> Outcome:
    """Run every case, each side in turn."""
    model = prepare()
    pool = adapters(folder / "compose_speed")
    rows = examples(str(model))
    port = Port.load(load_model(model, "cpu"), pool, rows)
    scorer = TorchScorer(load_model(model, "cpu"), pool, "lorahub")
    sides: Mapping[str, Evaluate] = {
        PORT: lambda population, best: [port.objective(weights) for weights in population],
        OURS: Ours(scorer, rows, stops=False),
        STOPPING: Ours(scorer, rows, stops=True),
    }
    return outcome({case: raced(case, sides) for case in cases(full)}, rows)


def cases(full: bool) -> Iterator[Case]:
    """One optimiser that goes step by step, the paper's, and one that asks for populations, our default."""
    for optimizer in ("NGOpt", "CMA"):
        yield Case(optimizer, 40)
        if full:
            yield Case(optimizer, 40, seed=1)
            yield Case(optimizer, 400)


def raced(case: Case, sides: Mapping[str, Evaluate]) -> dict[str, Search]:
    """The searches of all sides, which take turns to begin."""
    searches = {name: Search(case, evaluate) for name, evaluate in sides.items()}
    order, left = list(searches.values()), case.budget
    while left:
        count = min(left, OPTIMIZERS[case.optimizer].workers)
        for search in order:
            search.step(count)
        left -= count
        order.reverse()
    return searches


def share(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Our time as a share of theirs, over all steps; the interval is a bootstrap of the steps, in pairs."""
    pairs = np.array([ours, theirs])
    drawn = pairs[:, np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))].sum(axis=2)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn[0] / drawn[1], (tail, 100 - tail))
    return Estimate(sum(ours) / sum(theirs), float(low), float(high))


def outcome(found: Mapping[Case, Mapping[str, Search]], rows: Sequence[Row]) -> Outcome:
    """What it comes to."""
    goals = []
    for case, searches in found.items():
        theirs, ours = searches[PORT], searches[STOPPING]
        goals.append(Goal(f"{case}: time, of the port's", 1 / FASTER, share(ours.seconds, theirs.seconds).value))
        goals.append(Goal(f"{case}: objective above the port's, of it", WORSE, ours.best / theirs.best - 1))
    lengths = [[len(row.prompt), len(row.answer)] for row in rows]
    return Outcome(
        runs=1,
        parameters={"threads": torch.get_num_threads(), "adapters": ADAPTERS, "rank": RANK, "lengths": lengths},
        results={
            str(case): {
                name: {
                    "seconds_a_candidate": sum(search.seconds) / len(search.seconds),
                    "share_of_port": asdict(share(search.seconds, searches[PORT].seconds)),
                    "objective": search.best,
                }
                for name, search in searches.items()
            }
            for case, searches in found.items()
        },
        samples={
            str(case): {name: each.seconds for name, each in searches.items()} for case, searches in found.items()
        },
        table=_table(found),
        notes=(
            f"threads: {torch.get_num_threads()}; tokens of prompts and answers: {lengths}; faster: times the port's "
            "speed [95% interval]; objective: loss + 0.05 mean |w| of the best candidate",
        ),
        goals=tuple(goals),
    )


def _table(found: Mapping[Case, Mapping[str, Search]]) -> Table:
    head = ("search", "side", "ms a candidate", "faster", "objective")
    rows = [_row(case, name, searches) for case, searches in found.items() for name in searches]
    return Table(head, tuple(rows))


def _row(case: Case, name: str, searches: Mapping[str, Search]) -> tuple[str, ...]:
    search = searches[name]
    part = share(search.seconds, searches[PORT].seconds)
    faster = f"{1 / part.value:.2f} [{1 / part.high:.2f}, {1 / part.low:.2f}]"
    milliseconds = 1000 * sum(search.seconds) / len(search.seconds)
    return (str(case), name, f"{milliseconds:.0f}", faster, f"{search.best:.5f}")


def examples(base: str) -> list[Row]:
    """Some of each task, in turns, as the chat template has them."""
    encoder = encoder_of(base, "chat")
    given = [each.examples for each in demo_adapters() if each.name in TASKS]
    chosen = itertools.islice((example for several in zip(*given, strict=False) for example in several), EXAMPLES)
    return [encoder.row(Example((Turn("user", prompt),), answer), answer) for prompt, answer in chosen]


def adapters(folder: Path) -> list[Path]:
    """Adapters of one rank on the same modules: each is the sum of a pair of the demo's, as near as the rank allows."""
    pairs = list(itertools.combinations(demo_adapters(), 2))[:ADAPTERS]
    folders = [folder / f"{first.name}-{second.name}" for first, second in pairs]
    if not all((each / "adapter_model.safetensors").exists() for each in folders):
        given = {each.name: _normal(each.folder, folder / each.name) for each in demo_adapters()}
        shapes = {path: _shape(each) for modules in given.values() for path, each in modules.items()}
        for out, (first, second) in zip(folders, pairs, strict=True):
            _write(out, shapes, given[first.name], given[second.name])
    return folders


def _normal(given: Path, out: Path) -> Mapping[str, Factors]:
    out.mkdir(parents=True, exist_ok=True)
    normalise(given, out)
    return read_factors(out)[0]


def _shape(factors: Factors) -> tuple[int, int]:
    return factors.b.shape[0], factors.a.shape[1]


def _write(out: Path, shapes: Shapes, first: Mapping[str, Factors], second: Mapping[str, Factors]) -> None:
    modules = {}
    for path, shape in shapes.items():
        given = ((1.0, first), (SECOND, second))
        terms = [Term(weight, each[path]) for weight, each in given if path in each]
        modules[path] = widened(svd(terms, rank=RANK).factors if terms else None, shape)
    out.mkdir(parents=True, exist_ok=True)
    write_factors(out, modules, "CAUSAL_LM")


def widened(factors: Factors | None, shape: tuple[int, int]) -> Factors:
    """The same update with zeros up to the common rank; none is zeros alone."""
    a, b = torch.zeros(RANK, shape[1]), torch.zeros(shape[0], RANK)
    if factors is not None:
        a[: factors.rank], b[:, : factors.rank] = factors.a, factors.b
    return Factors(a, b)


BENCHMARK = Benchmark("compose_speed", "LoRAHub's search beside a port of the published loop", run)
