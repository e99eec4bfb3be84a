"""The figures of the benchmark of fairness, from what was measured."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum

import numpy as np

from tests.bench.estimate import Estimate, median, paired_ratio
from tests.bench.flood import Flow
from tests.bench.outcome import Goal, Outcome, Table

BASE, OWN, COLD = "base", "own", "cold"
"""What the one key asks for: the base, an adapter that nobody else uses, and one that is not in memory."""
LIMITED = (BASE, OWN)
"""What the goal is for."""
ROUNDS = 5
"""In fewer rounds a figure is a hint, and no goal is judged by it."""


class Phase(Enum):
    """What goes on while one key sends one request at a time."""

    IDLE = "idle"
    FAIR = "beside the flood"
    ONE_KEY = "beside it, both with one key"
    VLLMS = "beside it, vLLM's own server"


IDLE, FAIR, ONE_KEY, VLLMS = Phase


@dataclass(frozen=True)
class Taken:
    """What one phase of one round gave.

    Attributes:
        first: seconds to the first token of each request, by what it asked for.
        flow: what the flood got meanwhile, where there was one.
    """

    first: Mapping[str, Sequence[float]]
    flow: Flow | None = None


def ratios(taken: Mapping[Phase, Sequence[Taken]], kind: str, beside: Phase = FAIR) -> Estimate:
    """The p95 beside the flood, relative to twice that on the idle server and one batch step; of each round."""
    steps = [flow.step for flow in _flows(taken[FAIR])]
    allowed = [2 * p95([each], kind) + step for each, step in zip(taken[IDLE], steps, strict=True)]
    return paired_ratio([p95([each], kind) for each in taken[beside]], allowed)


def p95(taken: Iterable[Taken], kind: str) -> float:
    """Of the times to the first token in all of these, in seconds."""
    return _percentile(95, taken, kind)


def outcome(taken: Mapping[Phase, Sequence[Taken]], parameters: Mapping[str, object]) -> Outcome:
    """The figures of all rounds."""
    rounds = len(taken[IDLE])
    kept = {kind: {beside: ratios(taken, kind, beside) for beside in taken if beside is not IDLE} for kind in LIMITED}
    flows = {phase: _flows(each) for phase, each in taken.items() if phase is not IDLE}
    costs = {phase: _cost(flows[FAIR], flows[phase]) for phase in flows if phase is not FAIR}
    return Outcome(
        runs=rounds,
        parameters=parameters,
        results={
            "p95 to twice the idle p95 and a step": {
                kind: {phase.value: asdict(ratio) for phase, ratio in of_kind.items()} for kind, of_kind in kept.items()
            },
            "flood": {phase.value: _figures(each) for phase, each in flows.items()},
            "flood's tokens per second, fair to": {phase.value: asdict(cost) for phase, cost in costs.items()},
        },
        samples={phase.value: [asdict(each) for each in of_phase] for phase, of_phase in taken.items()},
        table=_table(taken),
        notes=(*_kept_notes(kept), *_flow_notes(flows), *_cost_notes(costs)),
        goals=tuple(_goals(kept)) if rounds >= ROUNDS else (),
    )


def _percentile(share: float, taken: Iterable[Taken], kind: str) -> float:
    return float(np.percentile([seconds for each in taken for seconds in each.first[kind]], share))


def _flows(taken: Iterable[Taken]) -> list[Flow]:
    return [each.flow for each in taken if each.flow is not None]


def _cost(fair: Sequence[Flow], other: Sequence[Flow]) -> Estimate:
    """What the flood gets beside the other key, relative to what it gets without fairness."""
    return paired_ratio([each.tokens_per_second for each in fair], [each.tokens_per_second for each in other])


def _figures(flows: Sequence[Flow]) -> dict[str, object]:
    figures: dict[str, Callable[[Flow], float]] = {
        "tokens_per_second": lambda flow: flow.tokens_per_second,
        "step": lambda flow: flow.step,
    }
    medians = {name: asdict(median([figure(flow) for flow in flows])) for name, figure in figures.items()}
    return {**medians, "longest": max(flow.longest for flow in flows)}


def _goals(kept: Mapping[str, Mapping[Phase, Estimate]]) -> Iterable[Goal]:
    for kind, of_kind in kept.items():
        yield Goal(f"{kind}: p95 beside the flood, to twice the idle p95 and a step", 1.0, of_kind[FAIR].value)


def _table(taken: Mapping[Phase, Sequence[Taken]]) -> Table:
    rows = [
        (
            phase.value,
            *(f"{1000 * _percentile(share, each, kind):,.0f}" for kind in (BASE, OWN, COLD) for share in (50, 95)),
            f"{1000 * max(seconds for one in each for times in one.first.values() for seconds in times):,.0f}",
        )
        for phase, each in taken.items()
    ]
    head = [f"{kind}, {share}" for kind in (BASE, OWN, COLD) for share in ("p50", "p95")]
    return Table(("first token, ms", *head, "longest"), tuple(rows))


def _kept_notes(kept: Mapping[str, Mapping[Phase, Estimate]]) -> Iterable[str]:
    for kind, of_kind in kept.items():
        told = "; ".join(f"{phase.value} {_written(ratio)}" for phase, ratio in of_kind.items())
        yield f"{kind}: p95 to twice the idle p95 and a step, medians of rounds: {told}"


def _flow_notes(flows: Mapping[Phase, Sequence[Flow]]) -> Iterable[str]:
    for phase, each in flows.items():
        tokens = median([flow.tokens_per_second for flow in each])
        step = 1000 * median([flow.step for flow in each]).value
        longest = max(flow.longest for flow in each)
        told = f"{tokens.value:.1f} tokens/s, a step {step:.0f} ms, longest wait {longest:.1f} s"
        yield f"the flood, {phase.value}: {told}"


def _cost_notes(costs: Mapping[Phase, Estimate]) -> Iterable[str]:
    for phase, ratio in costs.items():
        yield f"the flood's tokens/s, fair to {phase.value.removeprefix('beside it, ')}: {_written(ratio)}"


def _written(ratio: Estimate) -> str:
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
