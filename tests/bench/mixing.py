"""Mixing adapters: how long it takes and how right it is, beside peft's `add_weighted_adapter`.

Both get the same random adapters and mix them in turns. Ours starts from the normal form and ends with factors; peft
starts from adapters on a model and ends with another one there. Errors are Frobenius norms over all modules, relative
to the mixture written out in float64.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from loraloom.adapters.arithmetic.factors import Factors, Mixed, Term
from loraloom.adapters.arithmetic.registry import combine
from loraloom.adapters.base import fingerprint
from loraloom.adapters.methods import EXACT, Method
from loraloom.demo.model import prepare
from tests.bench.estimate import median, paired_ratio
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.peft_mixing import Adapted, Adapter, Shapes
from tests.bench.random_adapters import LINEAR
from tests.bench.registry import Benchmark

ROUNDS, FULL_ROUNDS = 5, 25
EXACTLY = 1e-5
"""The largest relative error of a sum that leaves nothing out."""
ABOVE_LEAST = 1e-4
"""How much larger than the least possible the relative error of a truncation may be."""
LAYERS = 32
"""Of a model of 7 billion parameters, such as Llama 2."""
HIDDEN, INTERMEDIATE = 4096, 11008
LAYER: Shapes = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (HIDDEN, HIDDEN)),
    **dict.fromkeys(("gate_proj", "up_proj"), (INTERMEDIATE, HIDDEN)),
    "down_proj": (HIDDEN, INTERMEDIATE),
}


MIXED = (Adapter(8, 0.6), Adapter(16, -0.4), Adapter(8, 0.5, rslora=True))
EVEN = (Adapter(8, 0.6), Adapter(8, -0.4), Adapter(8, 0.5, rslora=True))
WIDE = (Adapter(64, 0.6), Adapter(128, -0.4), Adapter(64, 0.5, rslora=True), Adapter(64, 0.3))


@dataclass(frozen=True)
class Case:
    """What both do.

    Attributes:
        about: in a few words.
        shapes: of the modules.
        adapters: in the order in which they are given.
        ours: the method.
        theirs: peft's `combination_type`; None to measure ours alone.
        most: the rounds that there are at most, since some take minutes.
    """

    about: str
    shapes: Shapes
    adapters: tuple[Adapter, ...]
    ours: Method
    theirs: str | None = None
    most: int = FULL_ROUNDS

    @property
    def rank(self) -> int | None:
        """That of a truncation."""
        found = dict(self.ours.parameters).get("rank")
        return None if found is None else int(found)

    @property
    def parameters(self) -> dict[str, object]:
        adapters = [{**asdict(adapter), "scaling": adapter.scaling} for adapter in self.adapters]
        return {"modules": len(self.shapes), "adapters": adapters, "ours": str(self.ours), "theirs": self.theirs}


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        ours, theirs: seconds, round by round.
        error, their_error: relative; None where peft was not asked or refused.
        least: the smallest error that the rank allows.
        refusal: what peft said, if it refused.
    """

    ours: list[float]
    theirs: list[float]
    error: float
    their_error: float | None
    least: float
    refusal: str | None = None


def run(folder: Path, full: bool) -> Outcome:
    """Measure every case, and in the full form a whole large model."""
    rounds = FULL_ROUNDS if full else ROUNDS
    found = [(case, measured(case, min(rounds, case.most))) for case in cases(demo_shapes(), full)]
    results: dict[str, object] = {case.about: _result(each) for case, each in found}
    notes = [
        f"milliseconds, medians of {rounds} rounds, threads: {torch.get_num_threads()}; the ratio of their pairs [95% "
        "interval]; errors are relative to the mixture in float64",
        *(f"{case.about}: peft refuses: {each.refusal}" for case, each in found if each.refusal),
    ]
    if full:
        seconds = sum(large_model(svd_to(16)))
        results[f"svd to 16 of all {LAYERS} layers of the 7B model, seconds"] = seconds
        notes.append(f"svd to 16 of all {LAYERS} layers of the 7B model, one after the other, once: {seconds:.1f} s")
    return Outcome(
        runs=rounds,
        parameters={"threads": torch.get_num_threads(), **{case.about: case.parameters for case, _ in found}},
        results=results,
        samples={case.about: {"ours": each.ours, "peft": each.theirs} for case, each in found},
        table=_table(found),
        notes=tuple(notes),
        goals=tuple(goal(case, each) for case, each in found),
    )


def cases(demo: Shapes, full: bool) -> Iterator[Case]:
    """What is measured; peft's svd of a large layer takes minutes a module, so the full form has one of them."""
    first = {name: shape for name, shape in demo.items() if "layers_0_" in name}
    yield Case("demo model, exact | cat", demo, MIXED, EXACT, "cat")
    yield Case("demo model, exact | cat, rsLoRA first", demo, MIXED[::-1], EXACT, "cat")
    yield Case("demo model, exact | linear, equal ranks", demo, EVEN, EXACT, "linear")
    yield Case("demo model, exact | linear, mixed ranks", demo, MIXED, EXACT, "linear")
    yield Case("demo layer, svd to 16", first, MIXED, svd_to(16), "svd")
    yield Case("demo layer, svd to 16, rsLoRA first", first, MIXED[::-1], svd_to(16), "svd")
    yield Case("7B layer, rank 320, exact | cat", LAYER, WIDE, EXACT, "cat")
    yield Case("7B layer, rank 320, svd to 16", LAYER, WIDE, svd_to(16))
    yield Case("7B layer, rank 320, svd to 64", LAYER, WIDE, svd_to(64))
    if full:
        one = {"q_proj": LAYER["q_proj"]}
        yield Case("7B q_proj, rank 320, svd to 16, once", one, WIDE, svd_to(16), "svd", most=1)


def svd_to(rank: int) -> Method:
    return Method("svd", (("rank", rank),))


def demo_shapes() -> Shapes:
    """Of the demo model's layers."""
    modules = fingerprint(prepare()).modules.items()
    found = {name.replace(".", "_"): shape for name, shape in modules if name.rsplit(".", 1)[-1] in LINEAR}
    return {name: (shape[0], shape[1]) for name, shape in found.items() if shape is not None}


def measured(case: Case, rounds: int) -> Measured:
    """Mix once to see what comes out, then in turns to see how long it takes."""
    adapted = Adapted.random(case.shapes, case.adapters)
    modules = {name: adapted.terms(name) for name in case.shapes}
    ours = {name: each.factors for name, each in mixed(case.ours, modules).items()}
    sides: list[Callable[[], object]] = [lambda: mixed(case.ours, modules)]
    their_error = refusal = None
    if case.theirs is not None:
        refusal = _refusal(adapted, case.theirs, case.rank)
    if case.theirs is not None and refusal is None:
        their_error = error(adapted, {name: adapted.mixture(name) for name in case.shapes})
        sides.append(lambda: adapted.mix(str(case.theirs), case.rank))
    least = 0.0 if case.rank is None else error_least(modules, case.rank)
    times = [*in_turns(sides, rounds), []]
    return Measured(times[0], times[1], error(adapted, ours), their_error, least, refusal)


def in_turns(sides: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each side, round by round; every second round begins with the last."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        for place in range(len(sides))[:: (1, -1)[number % 2]]:
            began = time.perf_counter()
            sides[place]()
            times[place].append(time.perf_counter() - began)
    return times


def mixed(method: Method, modules: Mapping[str, Sequence[Term]]) -> dict[str, Mixed]:
    """Ours, of every module."""
    return {name: combine(method, terms, name) for name, terms in modules.items()}


def error(adapted: Adapted, mixture: Mapping[str, Factors]) -> float:
    """The mixture's relative error, over all modules."""
    squares: list[tuple[float, float]] = []
    for name, factors in mixture.items():
        whole = adapted.written_out(name)
        size = float(whole.norm())
        whole.addmm_(factors.b.double(), factors.a.double(), alpha=-1)
        squares.append((size**2, float(whole.norm()) ** 2))
    sizes, wrong = zip(*squares, strict=True)
    return math.sqrt(math.fsum(wrong) / math.fsum(sizes))


def error_least(modules: Mapping[str, Sequence[Term]], rank: int) -> float:
    """The relative error of the nearest updates of that rank, over all modules: Eckart and Young, 1936."""
    values = [singular_values(terms) for terms in modules.values()]
    left_out = math.fsum(float(each[rank:].square().sum()) for each in values)
    return math.sqrt(left_out / math.fsum(float(each.square().sum()) for each in values))


def singular_values(terms: Sequence[Term]) -> torch.Tensor:
    """Of the sum, falling: roots of the eigenvalues of sqrt(b^T b) a a^T sqrt(b^T b), by another way than ours."""
    a = torch.cat([term.factors.a.double() for term in terms])
    b = torch.cat([term.weight * term.factors.b.double() for term in terms], dim=1)
    values, vectors = torch.linalg.eigh(b.T @ b)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return torch.linalg.eigvalsh(root @ (a @ a.T) @ root).clamp(min=0).sqrt().flip(0)


def large_model(method: Method) -> Iterator[float]:
    """Seconds that ours takes for each layer of the 7B model."""
    for _ in range(LAYERS):
        adapted = Adapted.random(LAYER, WIDE)
        modules = {name: adapted.terms(name) for name in LAYER}
        began = time.perf_counter()
        mixed(method, modules)
        yield time.perf_counter() - began


def goal(case: Case, found: Measured) -> Goal:
    """What ours must keep to, whatever peft does."""
    if case.rank is None:
        return Goal(f"{case.about}: relative error of ours", EXACTLY, found.error)
    return Goal(f"{case.about}: error of ours above the least", ABOVE_LEAST, found.error - found.least)


def _refusal(adapted: Adapted, combination: str, rank: int | None) -> str | None:
    try:
        adapted.mix(combination, rank)
    except ValueError as error:
        return str(error)
    return None


def _result(found: Measured) -> dict[str, object]:
    ratio = asdict(paired_ratio(found.ours, found.theirs)) if found.theirs else None
    errors = {"error": found.error, "peft_error": found.their_error, "least_error": found.least}
    return {"seconds": asdict(median(found.ours)), "ratio": ratio, **errors, "peft_refuses": found.refusal}


def _table(found: Sequence[tuple[Case, Measured]]) -> Table:
    head = ("ours | peft's", "ours", "peft", "ratio", "our error", "peft's", "least possible")
    return Table(head, tuple(_row(case.about, each) for case, each in found))


def _row(about: str, found: Measured) -> tuple[str, ...]:
    ours, theirs, ratio, their_error = f"{1000 * median(found.ours).value:.1f}", "-", "-", "-"
    if found.theirs:
        ratios = paired_ratio(found.ours, found.theirs)
        theirs = f"{1000 * median(found.theirs).value:.1f}"
        ratio = f"{ratios.value:.3f} [{ratios.low:.3f}, {ratios.high:.3f}]"
        their_error = f"{found.their_error:.3g}"
    return (about, ours, theirs, ratio, f"{found.error:.3g}", their_error, f"{found.least:.3g}")


BENCHMARK = Benchmark("mixing", "mixing adapters, beside peft: time and error", run, by_default=False)
