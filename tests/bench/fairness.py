"""What a key gets beside another one that floods the server: the time to its first token, with and without fairness.

One key keeps 64 requests open, for a dozen adapters, where the engine computes eight at a time with four adapters
among them. The other key sends one request at a time: for the base, for an adapter of its own, for one that is not in
memory. What it gets is measured on the idle server; beside the flood; and beside the flood without fairness, in two
ways. In the one, it sends the flood's own key, so that both are one to the server. The other is vLLM's own server with
the same arguments and LoraLoom's kernels, where everything goes into the engine's queue, as it did in LoraLoom before
it had keys; the short form leaves it out.

All of it is measured in turns, which change direction with every round; who is not measured has nothing to do. Without
fairness each request waits for half a minute, so there its three requests of a round are sent at the same time.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path

import httpx

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from loraloom.demo.model import prepare
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from loraloom.server.launch import plan
from loraloom.server.machine import inspect
from loraloom.server.settings import Handoff, Settings
from tests.bench.fairness_figures import BASE, COLD, FAIR, IDLE, ONE_KEY, OWN, VLLMS, Phase, Taken, outcome
from tests.bench.flood import flooding, flow
from tests.bench.load import PATIENCE, Body, ask
from tests.bench.outcome import Outcome
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, VLLM, Start, free_port, started

WIDTH = 64
"""Requests that the flood keeps open."""
FLOOD = tuple(f"flood{number}" for number in range(12))
"""The adapters that it asks for."""
SHORTEST, LONGEST = 30, 64
"""Tokens of its answers."""
PROMPT = 24
"""Tokens of every prompt."""
PROBE = 2
"""Tokens of an answer to the other key: what is measured is the first."""
MEMORY = 20
COLDS = tuple(f"cold{number}" for number in range(MEMORY))
"""Adapters that take turns: when one's turn comes, others have taken its place in memory."""
FILLING = 6.0
"""Seconds before a measurement in which the flood fills all seats, and its first requests end."""
SETTLE = 1.5
"""Seconds before each phase: vLLM's processes poll for one second after their last step."""
NAME = "smollm2"
SLOTS, SEATS = 4, 8
SETTINGS = {"max_loras": SLOTS, "max_cpu_loras": MEMORY, "max_lora_rank": 16}
ENGINE = ("--max-model-len", "512", "--max-num-seqs", str(SEATS), "--no-enable-prefix-caching")
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: how often.
        many: requests of each kind in a phase of a round; without fairness it is one.
        phases: what goes on meanwhile.
    """

    rounds: int
    many: int
    phases: tuple[Phase, ...]


SHORT, FULL = Size(2, 12, (IDLE, FAIR, ONE_KEY)), Size(7, 20, (IDLE, FAIR, ONE_KEY, VLLMS))


def run(folder: Path, full: bool) -> Outcome:
    """Start the servers, and let the phases take turns."""
    size, model = FULL if full else SHORT, prepare()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        store = _filled(Path(scratch, "store"), model)
        keys = [KeyRing(store).create(name, Terms(adapters=("*",))).text for name in ("crowd", "single")]
        starts = [_ours(model, store, Path(scratch)), *([_theirs(model, store)] if VLLMS in size.phases else [])]
        print(f"starting {' and '.join(start.name for start in starts)}: a minute or two", flush=True)
        servers = [stack.enter_context(started(start, Path(scratch))) for start in starts]
        for server in servers:
            server.wait_until_ready()
        crowd, single, theirs = (
            Sender(servers[0].url, keys[0]),
            Sender(servers[0].url, keys[1]),
            Sender(servers[-1].url),
        )
        taken = asyncio.run(measured({FAIR: (crowd, single), ONE_KEY: (crowd, crowd), VLLMS: (theirs, theirs)}, size))
    tokens = {"prompt": PROMPT, "answer": (SHORTEST, LONGEST)}
    return outcome(taken, {"width": WIDTH, "adapters": len(FLOOD), "tokens": tokens, "engine": ENGINE, **SETTINGS})


def _filled(folder: Path, model: Path) -> Store:
    """A store in which the demo's adapters have many names: to the server those are as many adapters."""
    store, base = Store.open(folder), fingerprint(model)
    for name, adapter in zip((OWN, *FLOOD, *COLDS), cycle(demo_adapters())):
        store.publish(adapter.folder, name, base=base, base_name=NAME)
    return store


def _ours(model: Path, store: Store, scratch: Path) -> Start:
    port = free_port()
    options = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [*LORALOOM, str(model), "--served-name", NAME, "--adapters", store.url, "--port", str(port), *options]
    environment = {**ENVIRONMENT, "LORALOOM_USAGE": str(scratch / "usage"), "LORALOOM_QUEUE_TIMEOUT": str(PATIENCE)}
    return Start("loraloom", [*command, "--", *ENGINE], port, environment)


def _theirs(model: Path, store: Store) -> Start:
    """As LoraLoom would start it, but without LoraLoom's gate, routes and workers."""
    port = free_port()
    settings = Settings.model_validate({"model": str(model), "adapters": store.url, **SETTINGS})
    launch = plan(settings, ENGINE, inspect(), {**os.environ, **ENVIRONMENT})
    lora = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    modules = [f"{name}={store.folder(store.versions(name)[-1].digest)}" for name in (OWN, *FLOOD, *COLDS)]
    command = [*VLLM, "--model", str(model), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
    kernels = {**Handoff(settings, 0, 0).environment(), "VLLM_PLUGINS": "loraloom"}
    return Start(
        "vllm",
        [*command, "--enable-lora", *lora, "--lora-modules", *modules, *ENGINE],
        port,
        {**launch.environment, **ENVIRONMENT, **kernels},
    )


@dataclass(frozen=True)
class Sender:
    """Where requests go, and with which key."""

    url: str
    key: str | None = None

    def client(self) -> httpx.AsyncClient:
        """One that sends them."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, limits=httpx.Limits(max_connections=2 * WIDTH))


async def measured(senders: Mapping[Phase, tuple[Sender, Sender]], size: Size) -> dict[Phase, list[Taken]]:
    """The phases in turns, after a first request for each adapter.

    Args:
        senders: who floods the server in a phase, and who asks beside it.
        size: how much.
    """
    taken: dict[Phase, list[Taken]] = {phase: [] for phase in size.phases}
    models = {BASE: cycle([NAME]), OWN: cycle([OWN]), COLD: cycle(COLDS)}
    for crowd in {senders[phase][0] for phase in size.phases if phase is not IDLE}:
        await _warm(crowd)
    for number in range(size.rounds):
        for phase in size.phases[:: (1, -1)[number % 2]]:
            await asyncio.sleep(SETTLE)
            taken[phase].append(await _taken(phase, senders[FAIR if phase is IDLE else phase], models, size.many))
            print(".", end="", flush=True)
    return taken


async def _warm(sender: Sender) -> None:
    async with sender.client() as client:
        for model in (NAME, OWN, *FLOOD):
            await ask(client, _body(model, PROBE))


async def _taken(phase: Phase, senders: tuple[Sender, Sender], models: Mapping[str, Iterator[str]], many: int) -> Taken:
    """One phase of one round."""
    async with senders[0].client() as crowd, senders[1].client() as single:
        if phase is IDLE:
            return Taken(await _in_turn(single, models, many))
        async with flooding(crowd, flood_bodies(), WIDTH) as streams:
            await asyncio.sleep(FILLING)
            begin = time.perf_counter()
            first = await (_in_turn(single, models, many) if phase is FAIR else _at_once(single, models))
            return Taken(first, flow(streams, begin, time.perf_counter()))


async def _in_turn(client: httpx.AsyncClient, models: Mapping[str, Iterator[str]], many: int) -> dict[str, list[float]]:
    first: dict[str, list[float]] = {kind: [] for kind in models}
    for _ in range(many):
        for kind, names in models.items():
            first[kind].append((await ask(client, _body(next(names), PROBE))).first)
    return first


async def _at_once(client: httpx.AsyncClient, models: Mapping[str, Iterator[str]]) -> dict[str, list[float]]:
    answers = await asyncio.gather(*(ask(client, _body(next(names), PROBE)) for names in models.values()))
    return {kind: [answer.first] for kind, answer in zip(models, answers, strict=True)}


def flood_bodies() -> Iterator[Body]:
    """The flood's requests, one after the other: each adapter in turn, with answers of all lengths."""
    for number, model in zip(count(), cycle(FLOOD)):
        yield _body(model, SHORTEST + 8 * number % (LONGEST - SHORTEST + 1))


def _body(model: str, tokens: int) -> Body:
    prompt = [1000 + number for number in range(PROMPT)]
    fixed = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    return {"model": model, "prompt": prompt, **fixed}


BENCHMARK = Benchmark("fairness", "time to a key's first token beside another key's flood, with and without", run)
