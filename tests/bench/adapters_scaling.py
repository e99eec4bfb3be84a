"""What it costs to have many adapters registered.

Servers that differ in their stores alone, of 1, 10, 100 and 1,000 adapters, run two at a time, and the same load goes
to one and then to the other, which changes with every round; the one that is not measured has nothing to do. There are
three kinds of traffic, all with the same prompts and as many tokens:

- The first eight adapters in turn, which every store of ten or more has: all fit into the slots. What a server then
  takes longer with 1,000 adapters than with 10 is what the other 990 cost by being there. The goal is for this one.
- Zipf: of all adapters of the store, by Zipf's law with exponent 1. Few are asked for often.
- Uniform: of all adapters of the store alike. Of 1,000 almost every request waits until its adapter is read.
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import httpx
import numpy as np

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.model import prepare
from tests.bench.errors import InvalidRun
from tests.bench.estimate import Estimate, median, paired_ratio
from tests.bench.load import Load, ask, closed_loop
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.plots import Curve, Panel, Plot
from tests.bench.processes import Usage, usage
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, Server, Start, free_port, started
from tests.bench.setup import Setup, rounds
from tests.bench.zoo_store import filled
from tests.bench.zoo_traffic import POPULARITIES, REQUESTS, SAME, SLOTS, TOKENS, Traffic

FEW, MANY = 10, 1000
"""Registered adapters of the two servers that the goal compares."""
CPU_TIER = 64
CLIENTS = 8
TOLERANCE = 0.05
"""How far from 1 the ratio of throughputs, 1,000 adapters to 10, may be."""
BASE = "smollm2"
ENGINE = ("--max-model-len", "1024", "--max-num-seqs", "16", "--no-enable-prefix-caching")
LORA = ("--max-loras", str(SLOTS), "--max-cpu-loras", str(CPU_TIER), "--max-lora-rank", "16")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        groups: sizes of the stores, of the servers that run at once: two, of four GiB each.
        pairs: rounds of the traffic that the goal is for.
        rounds: of each of the others.
        warm: rounds of those before the measured ones, so that the adapters in memory are those of the traffic.
    """

    groups: tuple[tuple[int, ...], ...]
    pairs: int
    rounds: int
    warm: int


SHORT = Plan(((FEW, MANY),), pairs=6, rounds=2, warm=1)
FULL = Plan(((FEW, MANY), (1, 100)), pairs=60, rounds=8, warm=4)


@dataclass(frozen=True)
class Measured:
    """One traffic on one server.

    Attributes:
        loads: of each round.
        processes: what the server's processes took at the end, by role.
    """

    loads: Sequence[Load]
    processes: Mapping[str, Usage]

    @property
    def throughput(self) -> Estimate:
        """Requests per second."""
        return median([load.requests_per_second for load in self.loads])

    @property
    def memory(self) -> float:
        """MiB of all processes, what they share counted once."""
        return sum(process.pss for process in self.processes.values())

    def first_token(self, percentile: float) -> float:
        """Milliseconds to the first token, of the requests of all rounds."""
        return float(np.percentile([1000 * answer.first for load in self.loads for answer in load.answers], percentile))


Results: TypeAlias = dict[tuple[Traffic, int], Measured]
"""Of each traffic, of each size."""


def run(folder: Path, full: bool) -> Outcome:
    """On this machine's processor, with the demo model and adapters like the demo's."""
    model = prepare()
    base = fingerprint(model)
    return measure(
        Setup(model, "float32", ENGINE),
        FULL if full else SHORT,
        lambda size: filled(folder / "stores" / f"zoo-{size}", size, base, BASE),
        full,
    )


def measure(setup: Setup, plan: Plan, store: Callable[[int], Store], judged: bool) -> Outcome:
    """Start servers, load these in turns, and compare.

    Args:
        setup: what they run on.
        plan: how much is measured.
        store: gives the store of that many adapters, filled.
        judged: whether there are goals: the short form's few pairs cannot decide them.
    """
    results: Results = {}
    for sizes in plan.groups:
        results |= _group({size: store(size) for size in sizes}, setup, plan)
    return _outcome(results, plan, setup, judged)


def _group(stores: Mapping[int, Store], setup: Setup, plan: Plan) -> Results:
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        print(f"starting {len(stores)} servers: two minutes or so", flush=True)
        servers = {
            size: stack.enter_context(started(_start(setup, size, store), Path(scratch)))
            for size, store in stores.items()
        }
        for server in servers.values():
            server.wait_until_ready()
        return asyncio.run(measured(servers, plan, setup))


def _start(setup: Setup, size: int, store: Store) -> Start:
    port, name = free_port(), f"adapters-{size}"
    command = [*LORALOOM, str(setup.model), "--served-name", BASE, "--adapters", store.url, "--port", str(port), *LORA]
    return Start(name, [*command, "--", *setup.arguments], port, setup.variables(name))


async def measured(servers: Mapping[int, Server], plan: Plan, setup: Setup) -> Results:
    """Each traffic on the servers in turns; the first one on those that the goal is for."""
    async with AsyncExitStack() as stack:
        clients = {
            size: await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
            for size, server in servers.items()
        }
        results: Results = {}
        if clients.keys() >= {FEW, MANY}:
            if not setup.dummy:
                await _compare(list(clients.values()))
            results |= await _rounds(SAME, servers, clients, setup, plan.pairs, 1)
        for traffic in POPULARITIES:
            results |= await _rounds(traffic, servers, clients, setup, plan.rounds, plan.warm)
        return results


async def _compare(clients: Sequence[httpx.AsyncClient]) -> None:
    """Raises `InvalidRun` unless all answer alike: the adapters of one number are the same in every store."""
    for body in SAME.bodies(FEW, 0)[:SLOTS]:
        texts = {(await ask(client, body)).text for client in clients}
        if len(texts) != 1:
            raise InvalidRun(f"the servers answer differently for {body['model']!r}: {texts}")


async def _rounds(
    traffic: Traffic,
    servers: Mapping[int, Server],
    clients: Mapping[int, httpx.AsyncClient],
    setup: Setup,
    count: int,
    warm: int,
) -> Results:
    """So many measured rounds, after a few others that bring the adapters of the traffic into memory."""
    loads: dict[int, list[Load]] = {size: [] for size in clients}
    for number in rounds(warm + count, setup.deadline, least=warm + 1):
        for size in list(clients)[:: (1, -1)[number % 2]]:
            await asyncio.sleep(setup.settle)
            loads[size].append(await closed_loop(clients[size], traffic.bodies(size, number), CLIENTS))
    return {(traffic, size): Measured(each[warm:], usage(servers[size].process.pid)) for size, each in loads.items()}


def _outcome(results: Results, plan: Plan, setup: Setup, judged: bool) -> Outcome:
    pairs = len(results[SAME, MANY].loads)
    ratio = paired_ratio(*([load.requests_per_second for load in results[SAME, size].loads] for size in (MANY, FEW)))
    return Outcome(
        runs=pairs,
        parameters={
            **asdict(plan),
            "clients": CLIENTS,
            "requests_per_round": REQUESTS,
            "tokens_per_answer": TOKENS,
            **setup.about,
            "lora": LORA,
            "tolerance": TOLERANCE,
        },
        results={
            "throughput ratio": asdict(ratio),
            **{f"{traffic.about}, {size}": _figures(each) for (traffic, size), each in results.items()},
        },
        samples={f"{traffic.about}, {size}": _samples(each) for (traffic, size), each in results.items()},
        table=_table(results),
        notes=(
            "medians of the rounds [95% interval]; memory of all processes, what they share counted once",
            f"{CLIENTS} clients in a closed loop, {TOKENS} tokens an answer, {SLOTS} slots, {CPU_TIER} in main memory",
            f"{SLOTS} in turn, {MANY:,} registered to {FEW}: throughput {ratio.value:.3f} "
            f"[{ratio.low:.3f}, {ratio.high:.3f}] of {pairs} pairs",
        ),
        goals=tuple(goals(ratio)) if judged else (),
        plots=(_plot(results),),
    )


def goals(ratio: Estimate) -> list[Goal]:
    """That the interval has 1 in it and ends within the tolerance."""
    about = f"of the throughput ratio, {MANY:,} adapters to {FEW}"
    return [
        Goal(f"distance of the interval {about} from 1", 0, max(ratio.low - 1, 1 - ratio.high, 0.0)),
        Goal(f"distance of an end of the interval {about} from 1", TOLERANCE, max(1 - ratio.low, ratio.high - 1)),
    ]


def _figures(measured: Measured) -> dict[str, object]:
    return {
        "requests/s": asdict(measured.throughput),
        "first token, p50, ms": measured.first_token(50),
        "first token, p99, ms": measured.first_token(99),
        "processes": {role: asdict(process) for role, process in measured.processes.items()},
        "memory, MiB": measured.memory,
    }


def _samples(measured: Measured) -> list[dict[str, object]]:
    return [
        {"seconds": load.seconds, "first_token_ms": [1000 * answer.first for answer in load.answers]}
        for load in measured.loads
    ]


def _table(results: Results) -> Table:
    head = ("traffic, adapters registered", "requests/s", "first token p50, ms", "p99, ms", "memory, MiB")
    return Table(head, tuple(_row(traffic, size, each) for (traffic, size), each in results.items()))


def _row(traffic: Traffic, size: int, measured: Measured) -> tuple[str, ...]:
    rate = measured.throughput
    first, late = measured.first_token(50), measured.first_token(99)
    throughput = f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
    return f"{traffic.about}, {size:,}", throughput, f"{first:,.0f}", f"{late:,.0f}", f"{measured.memory:,.0f}"


def _plot(results: Results) -> Plot:
    rates, firsts, memory = [], [], []
    for traffic in POPULARITIES:
        of_traffic = sorted((size, one) for (each, size), one in results.items() if each is traffic)
        sizes, each = zip(*of_traffic, strict=True)
        ends = [(one.throughput.low, one.throughput.high) for one in each]
        rates.append(Curve(traffic.about, sizes, [one.throughput.value for one in each], ends))
        firsts += [
            Curve(f"{traffic.about}, p{percentile}", sizes, [one.first_token(percentile) for one in each])
            for percentile in (50, 99)
        ]
        memory.append(Curve(traffic.about, sizes, [one.memory for one in each]))
    return Plot(
        "sizes",
        f"By adapters registered: {CLIENTS} clients, {SLOTS} slots, {CPU_TIER} adapters in main memory",
        (
            Panel("adapters registered", "requests per second", rates, log=True),
            Panel("adapters registered", "ms to the first token", firsts, log=True),
            Panel("adapters registered", "MiB of main memory (PSS)", memory, log=True),
        ),
    )


BENCHMARK = Benchmark("adapters_scaling", "throughput, first token and memory, by adapters registered", run)
