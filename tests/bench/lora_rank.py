"""What an adapter of rank 8 costs on a server that takes rank 64, beside one that takes no more than 8.

vLLM pads every slot to the server's largest rank; an adapter should pay for its own. Both servers are LoraLoom's, are
up at the same time, and get the same batches in turns: 8 requests at once with 4 adapters.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict
from pathlib import Path

import httpx

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.model import prepare
from tests.bench.estimate import Estimate, median, paired_ratio
from tests.bench.lora_overhead import BASE, ENGINE, NO_CACHE, Case, Timing, batch, engine_dtype
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.random_adapters import name_of, random_adapter
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, Server, Start, free_port, started
from tests.bench.setup import ENVIRONMENT, SETTLE

CASE = Case(adapters=4, batch=8)
RANKS = (8, 64)
ROUNDS, FULL_ROUNDS = 5, 25


def run(folder: Path, full: bool) -> Outcome:
    """Start both servers, load them in turns."""
    model, rounds = prepare(), FULL_ROUNDS if full else ROUNDS
    base = fingerprint(model)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        store = Store.open(Path(scratch, "store"))
        for number in range(CASE.adapters):
            name = name_of(CASE.rank, number)
            source = random_adapter(folder / "adapters" / name, base, CASE.rank, number)
            store.publish(source, name, base=base, base_name=BASE)
        print("starting two servers: two minutes or so", flush=True)
        servers = [stack.enter_context(started(_start(model, store, rank), Path(scratch))) for rank in RANKS]
        for server in servers:
            server.wait_until_ready()
        times = asyncio.run(_measured(servers, rounds))
    return _outcome(times, rounds)


def _start(model: Path, store: Store, rank: int) -> Start:
    port = free_port()
    command = [*LORALOOM, str(model), "--served-name", BASE, "--adapters", store.url, "--port", str(port)]
    lora = ["--max-loras", str(CASE.adapters), "--max-lora-rank", str(rank)]
    return Start(
        f"rank-{rank}", [*command, *lora, "--", "--dtype", engine_dtype(), *ENGINE, *NO_CACHE], port, ENVIRONMENT
    )


async def _measured(servers: Sequence[Server], rounds: int) -> list[list[Timing]]:
    """Of each server, round by round."""
    times: list[list[Timing]] = [[] for _ in servers]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=server.url)) for server in servers]
        for client in clients:
            await batch(client, CASE, tokens=4)
        for number in range(rounds):
            for place in (0, 1)[:: (1, -1)[number % 2]]:
                await asyncio.sleep(SETTLE)
                times[place].append(await batch(clients[place], CASE))
    return times


def _outcome(times: Sequence[Sequence[Timing]], rounds: int) -> Outcome:
    parts = ("prefill", "decode")
    seconds = {part: [[getattr(each, part) for each in of] for of in times] for part in parts}
    ratios = {part: paired_ratio(large, small) for part, (small, large) in seconds.items()}
    return Outcome(
        runs=rounds,
        parameters={"case": asdict(CASE), "ranks": RANKS, "dtype": engine_dtype(), "engine": [*ENGINE, *NO_CACHE]},
        results={part: asdict(ratio) for part, ratio in ratios.items()},
        samples={f"rank {rank}": [asdict(each) for each in of] for rank, of in zip(RANKS, times, strict=True)},
        table=Table(
            ("4 adapters of rank 8, batch 8", "server of rank 8", "of rank 64", "ratio"),
            tuple(_row(part, *map(median, seconds[part]), ratios[part]) for part in parts),
        ),
        notes=(f"milliseconds, medians of {rounds} rounds; the ratio of their pairs [95% interval]",),
        goals=tuple(Goal(f"{part}, rank 64 to rank 8", 1.05, ratios[part].value) for part in parts),
    )


def _row(part: str, small: Estimate, large: Estimate, ratio: Estimate) -> tuple[str, ...]:
    times = (f"{1000 * each.value:.1f}" for each in (small, large))
    return (part, *times, f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")


BENCHMARK = Benchmark("lora_rank", "a small adapter on a server that takes large ones", run, by_default=False)
