"""What the edge costs a user: LoraLoom against vLLM's own server with the same adapters named at its start.

Both run at once with the same engine arguments, and the same load goes to one and then to the other, which changes
with every round; the one that is not measured has nothing to do. Both use vLLM's own CPU kernels for LoRA, so that
what differs is the edge alone: gate and leases. (LoraLoom's kernels are another benchmark's matter.)
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeAlias

import httpx

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import DemoAdapter, demo_adapters
from loraloom.demo.model import prepare
from tests.bench.errors import InvalidRun
from tests.bench.estimate import Estimate, median, paired_ratio
from tests.bench.load import Body, Load, ask, closed_loop
from tests.bench.outcome import Outcome, Table
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, VLLM, Server, Start, free_port, started

ROUNDS = 12
CLIENTS = 8
REQUESTS = 2 * CLIENTS
"""Of one round: few, so that both servers of a pair meet the same moment of the machine."""
SETTLE = 1.5
"""Seconds before each load: vLLM's processes poll for one second after their last step, and would slow the other."""
TOKENS = 12
"""Of each answer."""
SLOTS = 4
"""Adapters of the load, and in one batch."""
BASE = "smollm2"
OURS, THEIRS = "loraloom", "vllm"
ENGINE = ("--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "16", "--no-enable-prefix-caching")
LORA = ("--max-loras", str(SLOTS), "--max-cpu-loras", str(2 * SLOTS), "--max-lora-rank", "16")
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
BEGINNINGS = (
    "The capital of France is",
    "Once upon a time there was a",
    "The three primary colours are",
    "To make a good cup of tea, first",
    "The largest planet of the solar system is",
)


@dataclass(frozen=True)
class Mix:
    """What a load asks for.

    Attributes:
        about: its name in the results.
        models: what the requests choose in turn.
    """

    about: str
    models: tuple[str, ...]

    @property
    def bodies(self) -> list[Body]:
        """The requests of one round."""
        return [_body(model, text) for model, text in islice(zip(cycle(self.models), cycle(BEGINNINGS)), REQUESTS)]


def _body(model: str, prompt: str) -> Body:
    fixed = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    return {"model": model, "prompt": prompt, **fixed}


def run(folder: Path, full: bool) -> Outcome:
    """Start both servers, see that they answer alike, load them in turns; there is one form."""
    model, adapters = prepare(), demo_adapters()[:SLOTS]
    mixes = (Mix("base", (BASE,)), Mix("adapters", tuple(adapter.name for adapter in adapters)))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        store = _filled(Path(scratch, "store"), model, adapters)
        print("starting LoraLoom and vLLM's own server: two minutes or so", flush=True)
        servers = [
            stack.enter_context(started(start, Path(scratch)))
            for start in (_ours(model, store), _theirs(model, store, adapters))
        ]
        for server in servers:
            server.wait_until_ready()
        loads = asyncio.run(measured(servers, mixes))
    return _outcome(loads, mixes)


def _filled(folder: Path, model: Path, adapters: Sequence[DemoAdapter]) -> Store:
    store, base = Store.open(folder), fingerprint(model)
    for adapter in adapters:
        store.publish(adapter.folder, adapter.name, base=base, base_name=BASE)
    return store


def _ours(model: Path, store: Store) -> Start:
    port = free_port()
    command = [*LORALOOM, str(model), "--served-name", BASE, "--adapters", store.url, "--port", str(port), *LORA]
    return Start(OURS, [*command, "--", *ENGINE], port, {**ENVIRONMENT, "LORALOOM_CPU_KERNELS": "false"})


def _theirs(model: Path, store: Store, adapters: Sequence[DemoAdapter]) -> Start:
    port = free_port()
    modules = [f"{each.name}={store.folder(store.versions(each.name)[-1].digest)}" for each in adapters]
    command = [*VLLM, "--model", str(model), "--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port)]
    lora = ["--enable-lora", *LORA, "--lora-modules", *modules]
    return Start(THEIRS, [*command, *lora, *ENGINE], port, {**ENVIRONMENT, "VLLM_PLUGINS": ""})


Loads: TypeAlias = dict[str, dict[str, list[Load]]]
"""Of each mix, of each server, of each round."""


async def measured(servers: Sequence[Server], mixes: Sequence[Mix]) -> Loads:
    """Load the servers in turns, after a first request for each model.

    Raises:
        InvalidRun: the servers do not give the same answers.
    """
    loads: Loads = {mix.about: {server.name: [] for server in servers} for mix in mixes}
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=server.url)) for server in servers]
        await _compare(clients, [model for mix in mixes for model in mix.models])
        turns = list(zip(servers, clients, strict=True))
        for number in range(ROUNDS):
            for mix in mixes:
                for server, client in turns[:: (1, -1)[number % 2]]:
                    await asyncio.sleep(SETTLE)
                    loads[mix.about][server.name].append(await closed_loop(client, mix.bodies, CLIENTS))
    return loads


async def _compare(clients: Sequence[httpx.AsyncClient], models: Sequence[str]) -> None:
    for model in models:
        texts = {(await ask(client, _body(model, BEGINNINGS[0]))).text for client in clients}
        if len(texts) != 1:
            raise InvalidRun(f"the servers answer differently for {model!r}: {texts}")


FIGURES: Mapping[str, Callable[[Load], float]] = {
    "requests/s": lambda load: load.requests_per_second,
    "first token, ms": lambda load: load.first_token_ms,
}


@dataclass(frozen=True)
class Comparison:
    """One figure of one mix.

    Attributes:
        ours, theirs: the figure, by its unit.
        ratio: ours to theirs, of the pairs that the rounds make.
    """

    ours: Estimate
    theirs: Estimate
    ratio: Estimate


def _outcome(loads: Loads, mixes: Sequence[Mix]) -> Outcome:
    compared = {
        (mix, figure): _comparison([*map(of, by_server[OURS])], [*map(of, by_server[THEIRS])])
        for mix, by_server in loads.items()
        for figure, of in FIGURES.items()
    }
    return Outcome(
        runs=ROUNDS,
        parameters={
            "clients": CLIENTS,
            "tokens_per_answer": TOKENS,
            "requests_per_round": REQUESTS,
            "models": {mix.about: mix.models for mix in mixes},
            "engine": [*LORA, *ENGINE],
            "environment": ENVIRONMENT,
        },
        results={f"{mix}, {figure}": asdict(comparison) for (mix, figure), comparison in compared.items()},
        samples={
            mix: {name: [_sample(load) for load in each] for name, each in of.items()} for mix, of in loads.items()
        },
        table=_table(compared),
        notes=(
            f"medians of {ROUNDS} rounds; the ratio, LoraLoom to vLLM, of their pairs [95% interval]",
            f"{CLIENTS} clients in a closed loop, {TOKENS} tokens an answer, vLLM's own LoRA kernels in both",
        ),
    )


def _comparison(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    return Comparison(median(ours), median(theirs), paired_ratio(ours, theirs))


def _sample(load: Load) -> dict[str, object]:
    return {"seconds": load.seconds, "first_token_ms": [1000 * answer.first for answer in load.answers]}


def _table(compared: Mapping[tuple[str, str], Comparison]) -> Table:
    rows = [
        (f"{mix}: {figure}", f"{each.ours.value:.4g}", f"{each.theirs.value:.4g}", _ratio(each.ratio))
        for (mix, figure), each in compared.items()
    ]
    return Table(("load", "LoraLoom", "vLLM", "ratio"), tuple(rows))


def _ratio(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


BENCHMARK = Benchmark(
    "edge_serving", "requests per second and time to first token, against vLLM's own server", run, by_default=False
)
