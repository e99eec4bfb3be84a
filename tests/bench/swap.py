"""What it costs to bring in an adapter that is not in memory, and what the others notice of it.

*Stages* of a cold load: its files are verified, read in a thread, put into the CPU tier, copied into a slot. *First
token* on a server that does nothing else: of adapters in a slot, and of cold ones. *Others*: a few streams decode all
the time, while now and then a request arrives for an adapter in memory, or for a cold one, or none does; the time
between two tokens of the streams tells what they notice. Requests for cold adapters go round among more adapters than
there are places, so that each is cold whenever its turn comes.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise
from pathlib import Path

import httpx
import numpy as np

from loraloom.adapters.base import BaseFingerprint, fingerprint
from loraloom.adapters.names import parse_adapter
from loraloom.adapters.store import Store
from loraloom.demo.model import prepare
from loraloom.server.gate.blobs import VerifiedBlobs
from tests.bench.errors import InvalidRun
from tests.bench.estimate import paired_ratio
from tests.bench.load import Answer, Body, ask
from tests.bench.lora_overhead import BASE, NO_CACHE, engine_dtype
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.random_adapters import random_adapter
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, Server, Start, free_port, started

RANK, PLACES, SLOTS = 16, 12, 8
COLD, RESIDENT = 20, 4
"""Adapters that take turns and never stay, and those that always do. Together more than there are places."""
STREAMS = 4
PROMPT, STREAM = 16, 300
"""Tokens of a prompt, and of a stream's answer."""
ARRIVALS, GAP = 8, 0.75
"""Requests in a window of the third part, and the seconds between two."""
QUIET, WARM, FRESH = "nobody", "an adapter in memory", "a cold adapter"
KINDS = (QUIET, WARM, FRESH)
LORA = ("--max-loras", str(SLOTS), "--max-cpu-loras", str(PLACES), "--max-lora-rank", str(RANK))
ENGINE = ("--max-model-len", "512", "--max-num-seqs", "16", "--max-num-batched-tokens", "2048", *NO_CACHE)
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}
STARTING = 300.0
"""Seconds that an engine may take to start and load a few adapters."""


@dataclass(frozen=True)
class Window:
    """A stretch of the third part, in seconds of `time.perf_counter`."""

    kind: str
    begin: float
    end: float


def run(folder: Path, full: bool) -> Outcome:
    """Measure the stages, then start a server for the rest."""
    model, rounds = prepare(), 15 if full else 5
    base = fingerprint(model)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        store, verified = _filled(Path(scratch, "store"), folder / "adapters", base)
        stages = {"verify": verified, **_stages(model, store)}
        server = stack.enter_context(started(_start(model, store), Path(scratch)))
        server.wait_until_ready()
        first, gaps = asyncio.run(_measured(server, rounds))
    return _outcome(stages, first, gaps, rounds)


def _filled(folder: Path, sources: Path, base: BaseFingerprint) -> tuple[Store, list[float]]:
    """A store with all adapters, and the seconds that each took to verify."""
    store, seconds = Store.open(folder), []
    for name, seed in [*_names("cold", COLD), *_names("warm", RESIDENT)]:
        source = random_adapter(sources / f"r{RANK}-{seed}", base, RANK, seed)
        published = store.publish(source, name, base=base, base_name=BASE)
        began = time.perf_counter()
        VerifiedBlobs(store).acquire(published.version.digest)
        seconds.append(time.perf_counter() - began)
    return store, seconds


def _names(kind: str, count: int) -> list[tuple[str, int]]:
    """Names, and the seeds of their numbers: no two alike."""
    first = {"cold": 1000, "warm": 2000}[kind]
    return [(f"{kind}{number}", first + number) for number in range(count)]


def _stages(model: Path, store: Store) -> dict[str, list[float]]:
    """Seconds of each stage in a worker."""
    folders = [str(store.folder(store.resolve(parse_adapter(name)).digest)) for name, _ in _names("cold", COLD)]
    command = [sys.executable, "-m", "tests.bench.swap_stages", str(model), engine_dtype(), *folders]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=STARTING, check=False)
    if done.returncode:
        raise InvalidRun(f"an engine for the stages did not start:\n{done.stderr[-4000:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {stage: [line[stage] for line in lines] for stage in lines[0]}


def _start(model: Path, store: Store) -> Start:
    port = free_port()
    command = [*LORALOOM, str(model), "--served-name", BASE, "--adapters", store.url, "--port", str(port), *LORA]
    return Start("loraloom", [*command, "--", "--dtype", engine_dtype(), *ENGINE], port, ENVIRONMENT)


async def _measured(server: Server, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[list[float]]]]:
    """Seconds to the first token by what it was asked of, and between tokens by window."""
    cold = cycle(name for name, _ in _names("cold", COLD))
    warm = cycle(name for name, _ in _names("warm", RESIDENT))
    async with httpx.AsyncClient(base_url=server.url) as client:
        for _ in range(RESIDENT):
            await ask(client, _body(next(warm), 1))
        first: dict[str, list[float]] = {WARM: [], FRESH: []}
        for _ in range(rounds * 5):
            first[WARM].append((await ask(client, _body(next(warm), 1))).first)
            first[FRESH].append((await ask(client, _body(next(cold), 1))).first)
        windows, answers = await _disturbed(client, {WARM: warm, FRESH: cold}, rounds)
    return first, {kind: [between(answers, window) for window in windows if window.kind == kind] for kind in KINDS}


async def _disturbed(
    client: httpx.AsyncClient, models: Mapping[str, Iterator[str]], rounds: int
) -> tuple[list[Window], list[Answer]]:
    """Streams that go on all the time, and windows in which requests arrive beside them."""
    answers: list[Answer] = []
    windows: list[Window] = []
    over = asyncio.Event()

    async def stream(model: str) -> None:
        while not over.is_set():
            answers.append(await ask(client, _body(model, STREAM)))

    async with asyncio.TaskGroup() as streams:
        for model in (BASE, *(name for name, _ in _names("warm", STREAMS - 1))):
            streams.create_task(stream(model))
        await asyncio.sleep(2)
        for number in range(rounds):
            for kind in KINDS[:: (1, -1)[number % 2]]:
                begin = time.perf_counter()
                async with asyncio.TaskGroup() as arriving:
                    for _ in range(ARRIVALS):
                        if kind in models:
                            arriving.create_task(ask(client, _body(next(models[kind]), 1)))
                        await asyncio.sleep(GAP)
                windows.append(Window(kind, begin, time.perf_counter()))
        over.set()
    return windows, answers


def between(answers: Sequence[Answer], window: Window) -> list[float]:
    """The times between two tokens of an answer that lie in the window."""
    return [
        after - before
        for answer in answers
        for before, after in pairwise(answer.arrivals)
        if window.begin <= before and after <= window.end
    ]


def _body(model: str, tokens: int) -> Body:
    prompt = [1000 + number for number in range(PROMPT)]
    fixed = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    return {"model": model, "prompt": prompt, **fixed}


def _p(share: float, seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, share))


def _outcome(
    stages: Mapping[str, Sequence[float]],
    first: Mapping[str, Sequence[float]],
    gaps: Mapping[str, Sequence[Sequence[float]]],
    rounds: int,
) -> Outcome:
    pooled = {kind: [gap for window in windows for gap in window] for kind, windows in gaps.items()}
    worst = {kind: [_p(99, window) for window in windows] for kind, windows in gaps.items()}
    ratios = {kind: paired_ratio(worst[FRESH], worst[kind]) for kind in (WARM, QUIET)}
    figures = {
        **{f"stage: {stage}": seconds for stage, seconds in stages.items()},
        **{f"first token of {kind}": seconds for kind, seconds in first.items()},
        **{f"between tokens, beside {kind}": seconds for kind, seconds in pooled.items()},
    }
    return Outcome(
        runs=rounds,
        parameters={"rank": RANK, "places": PLACES, "slots": SLOTS, "streams": STREAMS, "dtype": engine_dtype()},
        results={
            "milliseconds": {
                about: {"p50": 1000 * _p(50, seconds), "p99": 1000 * _p(99, seconds)}
                for about, seconds in figures.items()
            },
            "p99 between tokens, beside a cold adapter to beside": {
                kind: asdict(ratio) for kind, ratio in ratios.items()
            },
        },
        samples={"stages": stages, "first": first, "between tokens": pooled},
        table=Table(
            ("milliseconds", "p50", "p99"),
            tuple(
                (about, f"{1000 * _p(50, each):.1f}", f"{1000 * _p(99, each):.1f}") for about, each in figures.items()
            ),
        ),
        notes=(
            f"adapters of rank {RANK} on all linear layers; {STREAMS} streams; a request each {GAP} s",
            *(
                f"p99 between tokens, beside a cold adapter to beside {kind}: {each.value:.2f} [{each.low:.2f}, "
                f"{each.high:.2f}]"
                for kind, each in ratios.items()
            ),
        ),
        goals=(Goal("p99 between tokens beside a cold adapter, to one in memory", 1.2, ratios[WARM].value),),
    )


BENCHMARK = Benchmark("swap", "a cold adapter by stage, and what the others notice of it", run)
