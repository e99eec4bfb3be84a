"""What came out of the benchmark of proxy-tuning: speeds, their cost beside the large model alone, and the goals."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loraloom.server.proxy.fitting.architecture import read_architecture
from loraloom.server.proxy.fitting.cost import load, separate, shared
from tests.bench.estimate import Estimate, paired_ratio
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.peft_batches import BatchTime
from tests.bench.proxy_contenders import ABOUT, ALONE, PROXY, PUBLISHED, TWO

TRAFFIC = "traffic"
SLACK = 1.15
"""How many times the bound the composite may cost."""


@dataclass(frozen=True)
class Samples:
    """Everything that was measured, round by round.

    Attributes:
        tokens: of each answer in a batch.
        batches: of each contender and size.
        traffic: tokens per second of each contender.
    """

    tokens: int
    batches: Mapping[tuple[str, int], Sequence[BatchTime]]
    traffic: Mapping[str, Sequence[float]]

    @property
    def rates(self) -> dict[str, dict[str, list[float]]]:
        """Tokens per second, by load and contender."""
        found: dict[str, dict[str, list[float]]] = {}
        for (name, size), times in sorted(self.batches.items(), key=lambda item: item[0][1]):
            found.setdefault(batch(size), {})[name] = [size * self.tokens / time.total for time in times]
        return {**found, TRAFFIC: {name: list(rates) for name, rates in self.traffic.items()}}

    def seconds(self, name: str, loaded: str, part: str) -> float | None:
        """The median of the first token or of a step; the traffic has none."""
        times = next((times for key, times in self.batches.items() if (key[0], batch(key[1])) == (name, loaded)), ())
        return statistics.median(getattr(time, part) for time in times) if times else None


@dataclass(frozen=True)
class Bounds:
    """What a token of the composite costs at least, by `fitting/cost.py`, as multiples of the large model alone.

    Attributes:
        once: bytes of weights read where the small ones are read once.
        twice: where they are read twice, as by two models.
        operations: floating-point operations.
    """

    once: float
    twice: float
    operations: float


def bounds(large: Path, small: Path) -> Bounds:
    """Of a large model's directory and a small one's."""
    one, other = load(read_architecture(large)), load(read_architecture(small))
    once, twice = shared(one, other), separate(one, other, other)
    return Bounds(once.read, twice.read, once.operations)


def batch(size: int) -> str:
    """What a load of so many requests at once is called."""
    return f"batch {size}"


Ratios = Mapping[str, Mapping[str, Estimate]]


def ratios(rates: Mapping[str, Mapping[str, Sequence[float]]], name: str, *, to: str) -> dict[str, Estimate]:
    """The tokens per second of a contender as multiples of another's, by load; loads that both had."""
    return {loaded: paired_ratio(each[name], each[to]) for loaded, each in rates.items() if name in each and to in each}


def summed_up(samples: Samples, large: Path, small: Path, gain: float | None) -> Outcome:
    """The outcome, without its parameters.

    Args:
        samples: what was measured.
        large, small: the models' directories.
        gain: how many times the published way's tokens per second the composite must reach in the traffic; None where
            nothing is demanded.
    """
    rates, bound = samples.rates, bounds(large, small)
    cost = {name: ratios(rates, ALONE, to=name) for name in ABOUT}
    gains = {name: ratios(rates, PROXY, to=name) for name in (TWO, PUBLISHED)}
    runs = min(len(each) for loads in rates.values() for each in loads.values())
    return Outcome(
        runs=runs,
        parameters={},
        results={
            "bounds": asdict(bound),
            "tokens_per_second": {
                loaded: {name: statistics.median(each) for name, each in by_name.items()}
                for loaded, by_name in rates.items()
            },
            "cost": {name: _plain(each) for name, each in cost.items() if name != ALONE},
            "gain": {f"over {name}": _plain(each) for name, each in gains.items()},
        },
        samples={
            "batches": {
                f"{name}, {size}": [asdict(time) for time in times] for (name, size), times in samples.batches.items()
            },
            "traffic": samples.traffic,
        },
        table=_table(samples, cost),
        notes=tuple(_notes(runs, bound, cost, gains)),
        goals=() if gain is None else tuple(_goals(bound, cost, gains, gain)),
    )


def _goals(bound: Bounds, cost: Ratios, gains: Ratios, gain: float) -> Iterator[Goal]:
    yield Goal(
        f"times a token costs by proxy at batch 1 beside the large model alone; the bound is {bound.twice:.2f}",
        SLACK * bound.twice,
        cost[PROXY][batch(1)].value,
    )
    yield Goal(
        "the published way's tokens per second to the composite's, in uneven traffic",
        1 / gain,
        1 / gains[PUBLISHED][TRAFFIC].value,
    )


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {loaded: asdict(each) for loaded, each in estimates.items()}


def _notes(runs: int, bound: Bounds, cost: Ratios, gains: Ratios) -> Iterator[str]:
    yield f"medians of {runs} rounds, of ratios of the same round [95% interval]; tokens of answers per second"
    yield (
        f"by bytes of weights, a token by proxy costs {bound.once:.2f} times one of the large model alone where the "
        f"small model is read once, {bound.twice:.2f} where twice; by operations {bound.operations:.2f}"
    )
    if alone := cost[PROXY].get(batch(1)):
        yield (
            f"at batch 1 it costs {_told(alone)}: {alone.value / bound.once:.2f} times the lower bound, "
            f"{alone.value / bound.twice:.2f} times the higher"
        )
    for name, by_load in gains.items():
        told = ", ".join(f"{loaded} {_told(each)}" for loaded, each in by_load.items())
        yield f"tokens per second by proxy, as multiples of {ABOUT[name]}: {told}"


def _table(samples: Samples, cost: Ratios) -> Table:
    rows = [
        (
            f"{loaded}: {ABOUT[name]}",
            f"{statistics.median(rates[name]):.1f}",
            "" if name == ALONE or loaded not in cost[name] else _told(cost[name][loaded]),
            _milliseconds(samples.seconds(name, loaded, "first")),
            _milliseconds(samples.seconds(name, loaded, "step")),
        )
        for loaded, rates in samples.rates.items()
        for name in ABOUT
        if name in rates
    ]
    return Table(("load", "tokens/s", "cost beside alone", "first tokens, ms", "step, ms"), tuple(rows))


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def _told(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
