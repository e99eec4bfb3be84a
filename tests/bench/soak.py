"""Whether a server holds out: mixed traffic for twenty minutes, while adapters are added, tagged and removed.

Readers ask for the base, for adapters, tags and versions, streaming and not. Keepers upload adapters, move tags, remove
versions and whole names, and ask for each right after its change. There are fewer places in memory than adapters, so
that some are always cold. Every answer is judged: prompts are taken whose right answer only one adapter gives, seen
before the soak. An error, a wrong answer, or memory, file handles, threads or sockets that keep growing fail it.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import DemoAdapter, demo_adapters
from loraloom.demo.model import prepare
from tests.bench.errors import InvalidRun
from tests.bench.growth import growth, rise
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.plots import Curve, Panel, Plot
from tests.bench.processes import Usage, usage
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, Server, Start, free_port, started
from tests.bench.soak_answers import BASE, Case, Standing
from tests.bench.soak_clients import Journal, Soak, answer, read
from tests.bench.soak_keepers import Keeper

READERS = 6
KEEPERS = 2
PATIENCE = 120.0
"""Seconds that one answer may take."""
LORA = ("--max-loras", "4", "--max-cpu-loras", "8", "--max-lora-rank", "16")
ENGINE = ("--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "16", "--enable-prefix-caching")
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True)
class Plan:
    """How long, and what is tolerated.

    Attributes:
        minutes: of the soak.
        prompts: of each adapter.
        interval: seconds between two looks at the processes.
        memory: MiB that all processes together may grow by in the second half, by their trend.
        peak: MiB that their most in the second half may lie above that in the first.
        counts: file handles, threads or sockets that a process may grow by in the second half.
    """

    minutes: float
    prompts: int
    interval: float
    memory: float
    peak: float
    counts: float


SHORT = Plan(minutes=1, prompts=1, interval=1, memory=128, peak=128, counts=8)
"""A minute shows errors and wrong answers; of growth it shows only the coarse."""
FULL = Plan(minutes=20, prompts=5, interval=5, memory=32, peak=64, counts=2)

Looks = list[tuple[float, Mapping[str, Usage]]]
"""Minutes since the soak began, and the processes then."""
COUNTS: Mapping[str, Callable[[Usage], float]] = {
    "handles": lambda process: process.handles,
    "threads": lambda process: process.threads,
    "sockets": lambda process: process.sockets,
}


def run(folder: Path, full: bool) -> Outcome:
    """Start a server, learn what is right, soak it, and judge."""
    plan, model, adapters, journal = FULL if full else SHORT, prepare(), demo_adapters(), Journal()
    with tempfile.TemporaryDirectory() as scratch:
        store = _filled(Path(scratch, "store"), model, adapters)
        with started(_start(model, store), Path(scratch)) as server:
            server.wait_until_ready()
            looks = asyncio.run(_soaked(server, plan, adapters, journal))
        damaged = sum(finding.kind == "damaged" for finding in store.verify())
    return _outcome(plan, journal, looks, damaged)


def _filled(folder: Path, model: Path, adapters: Sequence[DemoAdapter]) -> Store:
    store, base = Store.open(folder), fingerprint(model)
    for adapter in adapters:
        store.publish(adapter.folder, adapter.name, base=base, base_name=BASE)
    return store


def _start(model: Path, store: Store) -> Start:
    port = free_port()
    command = [*LORALOOM, str(model), "--served-name", BASE, "--adapters", store.url, "--port", str(port), *LORA]
    return Start("soaked", [*command, "--", *ENGINE], port, ENVIRONMENT)


async def _soaked(server: Server, plan: Plan, adapters: Sequence[DemoAdapter], journal: Journal) -> Looks:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        cases = await learned(client, adapters, plan.prompts)
        directory = {name: Standing(name) for name in (BASE, *cases)}
        soak = Soak(client, cases, directory, journal, time.monotonic() + 60 * plan.minutes)
        keepers = [Keeper(soak, f"kept/{number}", adapters) for number in range(KEEPERS)]
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(_watched(server, soak, plan.interval))
            for keeper in keepers:
                group.create_task(keeper.keep())
            for seed in range(READERS):
                group.create_task(read(soak, seed))
        return looking.result()


async def learned(client: httpx.AsyncClient, adapters: Sequence[DemoAdapter], count: int) -> dict[str, list[Case]]:
    """Cases of each adapter whose right answer it gives when it is asked alone, and nobody else ever.

    Raises:
        InvalidRun: an adapter has none.
    """
    behaviours = [BASE, *(adapter.name for adapter in adapters)]
    cases = {}
    for adapter in adapters:
        each = [await _case(client, adapter.name, *example, behaviours) for example in adapter.examples[:count]]
        cases[adapter.name] = [case for case in each if case.tells]
        if not cases[adapter.name]:
            raise InvalidRun(f"none of {adapter.name}'s examples shows that it is {adapter.name} that answers: {each}")
    return cases


async def _case(client: httpx.AsyncClient, adapter: str, prompt: str, expected: str, behaviours: Sequence[str]) -> Case:
    alone = await answer(client, adapter, prompt, stream=False)
    others = [behaviour for behaviour in behaviours if behaviour != adapter]
    together = await asyncio.gather(*(answer(client, other, prompt, stream=True) for other in others))
    seen = dict(zip((adapter, *others), map(str, (alone, *together)), strict=True))
    return Case(prompt, expected, adapter, seen)


async def _watched(server: Server, soak: Soak, interval: float) -> Looks:
    """Look at the server's processes until the end."""
    looks: Looks = []
    began = time.monotonic()
    while soak.running:
        looks.append(((time.monotonic() - began) / 60, await asyncio.to_thread(usage, server.process.pid)))
        await asyncio.sleep(interval)
    return looks


def _outcome(plan: Plan, journal: Journal, looks: Looks, damaged: int) -> Outcome:
    verdicts = {verdict.value: count for verdict, count in journal.verdicts.items()}
    return Outcome(
        runs=1,
        parameters={
            **asdict(plan),
            "readers": READERS,
            "keepers": KEEPERS,
            "engine": [*LORA, *ENGINE],
            "environment": ENVIRONMENT,
        },
        results={
            "answers": verdicts,
            "operations": journal.operations,
            "errors": journal.errors,
            "faults": journal.faults,
            "growth": {what: growths(looks, of) for what, of in {"own": _own, **COUNTS}.items()},
        },
        samples={"minutes": _minutes(looks), "processes": [_plain(each) for _, each in looks]},
        table=_table(looks),
        notes=(
            "first and last look [trend over the second half]; own memory is what is not mapped from files",
            "answers: " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items()),
            "operations: " + ", ".join(f"{count:,} {name}" for name, count in sorted(journal.operations.items())),
            *journal.faults,
        ),
        goals=tuple(goals(plan, journal, looks, damaged)),
        plots=(_plot(looks),),
    )


def goals(plan: Plan, journal: Journal, looks: Looks, damaged: int) -> list[Goal]:
    """No error, no wrong answer, no damage, no other processes than at the start, and no growth."""
    total = [sum(process.own for process in each.values()) for _, each in looks]
    changed = sum(each.keys() != looks[0][1].keys() for _, each in looks)
    return [
        Goal("requests and changes that failed", 0, journal.errors),
        Goal("wrong answers", 0, journal.wrong),
        Goal("damaged records and blobs in the store", 0, damaged),
        Goal("looks that found other processes than the first", 0, changed),
        Goal("MiB that all processes grew by in the second half", plan.memory, sum(growths(looks, _own).values())),
        Goal("MiB that their peak in the second half is above the first's", plan.peak, rise(_minutes(looks), total)),
        *(
            Goal(f"{what} that a process grew by in the second half", plan.counts, max(growths(looks, of).values()))
            for what, of in COUNTS.items()
        ),
    ]


def growths(looks: Looks, of: Callable[[Usage], float]) -> dict[str, float]:
    """How much a figure of each process grew in the second half, of those that were there all the time."""
    return {role: growth(minutes, values) for role, (minutes, values) in _curves(looks, of).items()}


def _curves(looks: Looks, of: Callable[[Usage], float]) -> dict[str, tuple[list[float], list[float]]]:
    lasting = [role for role in looks[0][1] if all(role in each for _, each in looks)]
    return {role: (_minutes(looks), [of(each[role]) for _, each in looks]) for role in lasting}


def _minutes(looks: Looks) -> list[float]:
    return [minute for minute, _ in looks]


def _own(process: Usage) -> float:
    return process.own


def _plain(processes: Mapping[str, Usage]) -> dict[str, object]:
    return {role: asdict(process) for role, process in processes.items()}


def _table(looks: Looks) -> Table:
    figures = [("own MiB", _own), *COUNTS.items()]
    grown = {what: growths(looks, of) for what, of in figures}
    first, last = looks[0][1], looks[-1][1]
    rows = [
        (role, *(f"{of(first[role]):.0f} {of(last[role]):.0f} [{grown[what][role]:+.1f}]" for what, of in figures))
        for role in grown["handles"]
    ]
    return Table(("process", *(what for what, _ in figures)), tuple(rows))


def _plot(looks: Looks) -> Plot:
    memory = [
        Curve(f"{role}, from {values[0]:,.0f}", minutes, [value - values[0] for value in values])
        for role, (minutes, values) in _curves(looks, _own).items()
    ]
    counts = [
        Panel("minutes", what, [Curve(role, *points) for role, points in _curves(looks, of).items()])
        for what, of in COUNTS.items()
    ]
    return Plot(
        "time",
        f"{READERS} clients ask while {KEEPERS} others add, tag and remove adapters",
        [Panel("minutes", "MiB more than at the start", memory), *counts],
    )


BENCHMARK = Benchmark("soak", "mixed traffic while adapters come and go: errors, wrong answers, growth", run)
