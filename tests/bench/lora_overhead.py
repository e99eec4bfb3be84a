"""What adapters cost beside none: LoraLoom, vLLM's own server, and transformers with peft, side by side.

Two loads. *Batches*: all requests at once, prompts of 256 random tokens, 64 tokens an answer, adapters by turns; the
prefill is the time to the last first token, a decode step the time between tokens while all answers are under way.
Each is told as a ratio to LoraLoom's own time for a batch of the base model. *Traffic*: prompts and answers of
uneven lengths arrive one after the other, faster than they can be answered; tokens per second count.

All are up at the same time, and are loaded in turns in every round; what is not measured has nothing to do.
"""

import asyncio
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import httpx

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.model import prepare
from loraloom.server.machine import inspect
from tests.bench import peft_batches
from tests.bench.arrivals import PROMPT, TOKENS, USUAL, Arrival, Stream, arrivals, batched, body, streamed
from tests.bench.estimate import Estimate, paired_ratio
from tests.bench.load import Answer, ask
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.peft_batches import NONE, Batch, PeftProcess
from tests.bench.random_adapters import name_of, random_adapter
from tests.bench.registry import Benchmark
from tests.bench.servers import LORALOOM, VLLM, Server, Start, free_port, started
from tests.bench.setup import Setup, part, rounds

BASE = "base"
OURS, STOCK, PEFT = "ours", "stock", "peft"
SLOTS = 16
LORA = ("--max-loras", str(SLOTS), "--max-cpu-loras", str(2 * SLOTS), "--max-lora-rank", "16")
ENGINE = ("--max-model-len", "512", "--max-num-seqs", "16", "--max-num-batched-tokens", "2048")
NO_CACHE = ("--no-enable-prefix-caching",)
BATCHES_SHARE = 0.6
"""Of the time until the deadline, where there is one; the traffic gets the rest."""


@dataclass(frozen=True)
class Case:
    """A batch to measure.

    Attributes:
        adapters: how many distinct ones; 0 for the base alone.
        batch: the number of requests.
        rank: of the adapters.
    """

    adapters: int
    batch: int
    rank: int = 8

    @property
    def base(self) -> "Case":
        """The same batch without adapters."""
        return Case(0, self.batch)

    @property
    def models(self) -> list[str]:
        """What the requests ask for, by turns."""
        if not self.adapters:
            return [BASE] * self.batch
        return [name_of(self.rank, number % self.adapters) for number in range(self.batch)]

    def __str__(self) -> str:
        return f"{self.adapters} of rank {self.rank}, batch {self.batch}" if self.adapters else f"base, {self.batch}"


@dataclass(frozen=True)
class Timing:
    """What a batch took, in seconds: until all answers have begun, and for each further token of all."""

    prefill: float
    decode: float


def timing(answers: Sequence[Answer]) -> Timing:
    """Prefill and decode step of answers that were asked for at the same time."""
    began, all_begun = min(answer.sent for answer in answers), max(answer.arrivals[0] for answer in answers)
    first_ended = min(answer.arrivals[-1] for answer in answers)
    steps = [
        after - before
        for answer in answers
        for before, after in zip(answer.arrivals, answer.arrivals[1:], strict=False)
        if before >= all_begun and after <= first_ended
    ]
    return Timing(all_begun - began, statistics.median(steps) if steps else 0.0)


def mean_timing(answers: Sequence[Answer]) -> Timing:
    """The same with the mean step of the answer that began last: right also where steps are so short that a server
    sends the tokens of several at once.
    """
    last = max(answers, key=lambda answer: answer.arrivals[0])
    began = min(answer.sent for answer in answers)
    return Timing(last.arrivals[0] - began, (last.arrivals[-1] - last.arrivals[0]) / (TOKENS - 1))


Batches: TypeAlias = dict[tuple[str, Case], list[Timing]]
"""Of each contender and case, round by round."""
Traffic: TypeAlias = dict[str, list[float]]
"""Tokens per second of each contender, round by round."""
Ratios: TypeAlias = Mapping[str, Mapping[tuple[str, Case], Estimate]]
"""Of the prefill and of the decode step: each contender's time to that of the base in ours, of the same round."""


def cpu_goals(ratios: Ratios, traffic: Traffic) -> Iterator[Goal]:
    """What the kernels for the CPU must reach."""
    four = Case(4, 8)
    prefill, decode = ratios["prefill"], ratios["decode"]
    worst = max(ratio.value for (name, case), ratio in prefill.items() if name == OURS and case.rank == 8)
    yield Goal("prefill with adapters of rank 8, to the base", 1.10, worst)
    yield Goal("prefill, ours to stock", 0.2, prefill[OURS, four].value / prefill[STOCK, four].value)
    yield Goal("decode at batch 8 with 4 adapters, to the base", 1.25, decode[OURS, four].value)
    yield Goal("traffic, peft's tokens per second to ours", 0.5, paired_ratio(traffic[PEFT], traffic[OURS]).value)


@dataclass(frozen=True)
class Plan:
    """What is measured how often.

    Attributes:
        ours, stock, peft: the cases of each; ours has the base's too.
        ranks: of the adapters that the servers know.
        rounds: of the batches, at most.
        traffic: rounds of the traffic, at most.
        in_traffic: who gets it.
        stream: the traffic's requests.
        warmed: who gets each of its batches once before the first round.
        timed: makes a server's timing of the answers of a batch.
        goals: what must come out.
    """

    ours: tuple[Case, ...]
    stock: tuple[Case, ...]
    peft: tuple[Case, ...]
    ranks: tuple[int, ...] = (8, 16)
    rounds: int = 5
    traffic: int = 5
    in_traffic: tuple[str, ...] = (OURS, STOCK, PEFT)
    stream: Stream = USUAL
    warmed: tuple[str, ...] = (OURS,)
    timed: Callable[[Sequence[Answer]], Timing] = timing
    goals: Callable[[Ratios, Traffic], Iterator[Goal]] = cpu_goals


EIGHT = (Case(1, 8), Case(4, 8), Case(16, 16))
SIXTEEN = tuple(Case(case.adapters, case.batch, rank=16) for case in EIGHT)
SHORT = Plan(EIGHT, EIGHT[1:2], EIGHT[1:2], in_traffic=(OURS, PEFT))
FULL = Plan((*EIGHT, *SIXTEEN), (*EIGHT, *SIXTEEN), (*EIGHT, *SIXTEEN))


def run(folder: Path, full: bool) -> Outcome:
    """On this machine's processor, with the demo model."""
    return measure(Setup(prepare(), engine_dtype(), (*ENGINE, *NO_CACHE)), FULL if full else SHORT, folder)


def measure(setup: Setup, plan: Plan, folder: Path) -> Outcome:
    """Start all three, load them in turns.

    Args:
        setup: what they run on.
        plan: what is measured.
        folder: where the adapters are kept.
    """
    base = fingerprint(setup.model)
    adapters = {
        name: random_adapter(folder / "adapters" / name, base, rank, number, setup.adapters)
        for rank in plan.ranks
        for number in range(SLOTS)
        for name in (name_of(rank, number),)
    }
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        store = Store.open(Path(scratch, "store"))
        for name, source in adapters.items():
            store.publish(source, name, base=base, base_name=BASE)
        print("starting LoraLoom, vLLM's own server, and peft: two minutes or so", flush=True)
        servers = [
            stack.enter_context(started(start, Path(scratch)))
            for start in (_ours(setup, store), _stock(setup, adapters))
        ]
        process = stack.enter_context(peft_batches.started(setup, adapters))
        for server in servers:
            server.wait_until_ready()
        batches, traffic = asyncio.run(Measurement(setup, plan, servers, process).taken())
    return _outcome(batches, traffic, plan, setup)


def engine_dtype() -> str:
    """The faster one on this processor, as `loraloom serve` chooses it."""
    return "bfloat16" if inspect().fast_bfloat16 else "float32"


def _ours(setup: Setup, store: Store) -> Start:
    port = free_port()
    command = [*LORALOOM, str(setup.model), "--served-name", BASE, "--adapters", store.url, "--port", str(port), *LORA]
    return Start(OURS, [*command, "--", *setup.arguments], port, setup.variables(OURS))


def _stock(setup: Setup, adapters: Mapping[str, Path]) -> Start:
    port = free_port()
    command = [*VLLM, "--model", str(setup.model), "--served-model-name", BASE, "--host", "127.0.0.1"]
    lora = ["--enable-lora", *LORA, "--lora-modules", *(f"{name}={path}" for name, path in adapters.items())]
    environment = {**setup.variables(STOCK), "VLLM_PLUGINS": ""}
    return Start(STOCK, [*command, "--port", str(port), *lora, *setup.arguments], port, environment)


@dataclass(frozen=True)
class Measurement:
    """All three, ready to be measured.

    Attributes:
        servers: ours and vLLM's own.
        process: peft's.
    """

    setup: Setup
    plan: Plan
    servers: Sequence[Server]
    process: PeftProcess

    async def taken(self) -> tuple[Batches, Traffic]:
        """The batches, then the traffic."""
        async with AsyncExitStack() as stack:
            clients = {
                server.name: await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
                for server in self.servers
            }
            for name, case in _turns(self.plan, 0):
                if name in self.plan.warmed:  # every adapter in its slot, every allocation made
                    await self._batch(clients.get(name), case, tokens=4)
            return await self._batches(clients), await self._traffic(clients)

    # -- batches

    async def _batches(self, clients: Mapping[str, httpx.AsyncClient]) -> Batches:
        batches: Batches = {}
        for number in rounds(self.plan.rounds, part(self.setup.deadline, BATCHES_SHARE)):
            for name, case in _turns(self.plan, number):
                await asyncio.sleep(self.setup.settle)
                batches.setdefault((name, case), []).append(await self._batch(clients.get(name), case))
            print(f"round {number + 1} of {self.plan.rounds}", flush=True)
        return batches

    async def _batch(self, client: httpx.AsyncClient | None, case: Case, tokens: int = TOKENS) -> Timing:
        """What a server takes, or without one peft."""
        prompts = self.setup.prompts
        if client is None:
            return await asyncio.to_thread(_peft_batch, self.process, case, prompts, tokens)
        return self.plan.timed(await answered(client, case, prompts, tokens))

    # -- traffic

    async def _traffic(self, clients: Mapping[str, httpx.AsyncClient]) -> Traffic:
        traffic: Traffic = {name: [] for name in self.plan.in_traffic}
        for number in rounds(self.plan.traffic, self.setup.deadline):
            coming = arrivals(number, self.plan.stream, self.setup.prompts)
            for name in self.plan.in_traffic[:: (1, -1)[number % 2]]:
                await asyncio.sleep(self.setup.settle)
                seconds = await self._answered(clients.get(name), coming)
                traffic[name].append(sum(request.tokens for request in coming) / seconds)
            print(f"traffic, round {number + 1} of {self.plan.traffic}", flush=True)
        return traffic

    async def _answered(self, client: httpx.AsyncClient | None, coming: Sequence[Arrival]) -> float:
        """Seconds that a server takes, or without one peft."""
        if client is None:
            return await batched(self.process, coming, self.plan.stream.concurrent)
        return await streamed(client, coming, self.plan.stream.concurrent)


def _all_ours(plan: Plan) -> list[Case]:
    return [*dict.fromkeys(case.base for case in plan.ours), *plan.ours]


def _turns(plan: Plan, number: int) -> list[tuple[str, Case]]:
    """What is measured in a round; every other round goes backward."""
    turns = [
        *((OURS, case) for case in _all_ours(plan)),
        *((STOCK, case) for case in plan.stock),
        *((PEFT, case) for case in plan.peft),
    ]
    return turns[:: (1, -1)[number % 2]]


async def batch(client: httpx.AsyncClient, case: Case, tokens: int = TOKENS) -> Timing:
    """What a batch takes with the demo model."""
    return timing(await answered(client, case, Setup.prompts, tokens))


async def answered(client: httpx.AsyncClient, case: Case, prompts: range, tokens: int) -> list[Answer]:
    """Ask for all answers of a batch at the same time."""
    bodies = [body(model, _tokens(prompts), tokens) for model in case.models]
    return await asyncio.gather(*(ask(client, each) for each in bodies))


def _peft_batch(process: PeftProcess, case: Case, prompts: range, tokens: int) -> Timing:
    asked = [_tokens(prompts) for _ in case.models]
    time = process.run(Batch(asked, [NONE if model == BASE else model for model in case.models], tokens))
    return Timing(time.first, time.step)


def _tokens(prompts: range) -> list[int]:
    """A prompt that no cache has seen."""
    return random.choices(prompts, k=PROMPT)


# -- what came out


def _ratios(batches: Batches, part: str) -> dict[tuple[str, Case], Estimate]:
    times = {key: [getattr(each, part) for each in samples] for key, samples in batches.items()}
    return {
        (name, case): paired_ratio(samples, times[OURS, case.base])
        for (name, case), samples in times.items()
        if case.adapters
    }


def _outcome(batches: Batches, traffic: Traffic, plan: Plan, setup: Setup) -> Outcome:
    done, stream = min(map(len, batches.values())), plan.stream
    parts = {part: _ratios(batches, part) for part in ("prefill", "decode")}
    results: dict[str, object] = {
        part: {
            name: {
                str(case.adapters): ratios[name, case].value
                for case in plan.ours
                if (name, case) in ratios and case.rank == plan.ranks[0]
            }
            for name in (OURS, STOCK, PEFT)
        }
        for part, ratios in parts.items()
    }
    results["intervals"] = {
        part: {f"{name}, {case}": asdict(ratio) for (name, case), ratio in ratios.items()}
        for part, ratios in parts.items()
    }
    results["tokens_per_second"] = {
        f"{name}, {case}": {
            "prefill": case.batch * PROMPT / statistics.median(each.prefill for each in samples),
            "decode": case.batch / statistics.median(each.decode for each in samples),
        }
        for (name, case), samples in batches.items()
    }
    results["traffic_tokens_per_second"] = {name: statistics.median(rates) for name, rates in traffic.items()}
    return Outcome(
        runs=done,
        parameters={
            **setup.about,
            **{"lora": LORA, "adapters": asdict(setup.adapters)},
            **{"prompt": PROMPT, "tokens": TOKENS, "traffic": asdict(stream)},
        },
        results=results,
        samples={
            "batches": {
                f"{name}, {case}": [asdict(each) for each in samples] for (name, case), samples in batches.items()
            },
            "traffic": traffic,
        },
        table=_table(batches, parts, traffic),
        notes=(
            f"medians of {done} rounds in {setup.dtype}; ratios to LoraLoom's base of the same round [95% interval]",
            f"prompts of {PROMPT} tokens, answers of {TOKENS}",
            f"traffic: {stream}",
        ),
        goals=tuple(plan.goals(parts, traffic)),
    )


def _table(batches: Batches, parts: Ratios, traffic: Traffic) -> Table:
    rows = [
        (
            f"{name}: {case}",
            *(
                cell
                for part, ratios in parts.items()
                for cell in _cells(batches[name, case], part, ratios.get((name, case)))
            ),
        )
        for name, case in batches
    ]
    rows += [
        (f"{name}: traffic", "", "", f"{statistics.median(rates):.0f} tokens/s", "") for name, rates in traffic.items()
    ]
    return Table(("adapters", "prefill, s", "ratio", "decode step, ms", "ratio"), tuple(rows))


def _cells(samples: Sequence[Timing], part: str, ratio: Estimate | None) -> Iterator[str]:
    seconds = statistics.median(getattr(each, part) for each in samples)
    yield f"{seconds:.2f}" if part == "prefill" else f"{1000 * seconds:.1f}"
    yield f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else ""


BENCHMARK = Benchmark("lora_overhead", "what adapters cost beside none, against vLLM's own kernels and peft", run)
