"""What proxy-tuning costs beside the large model alone, and what it gains on the way in which it is published.

Five are compared: the large model alone; the composite model, with every request steered; the same server with requests
of the plain large model; the composite with expert and antiexpert as two models, which reads the small weights twice;
and transformers with three models in lockstep. Two loads. *Batches*: 1, 4 or 8 requests at once, prompts and answers of
one length. *Traffic*: prompts and answers of uneven lengths arrive faster than they can be answered, eight are answered
at a time. Adapters and strengths go by turns. Tokens of answers per second count, from the first request to the last
token.

All are up at the same time, and are loaded in turns in every round; what is not measured has nothing to do.
"""

import asyncio
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import httpx

from loraloom.demo.catalog import small_adapters
from loraloom.demo.model import prepare
from loraloom.demo.small import prepare_small
from tests.bench.arrivals import USUAL, Arrival, Stream, arrivals, batched, body, streamed
from tests.bench.load import Answer, ask
from tests.bench.lora_overhead import ENGINE, NO_CACHE, engine_dtype
from tests.bench.outcome import Outcome
from tests.bench.peft_batches import Batch, BatchTime
from tests.bench.proxy_contenders import ABOUT, PLAIN, PUBLISHED, SERVER, TWO, Contenders, Couple, all_started
from tests.bench.proxy_figures import Samples, summed_up
from tests.bench.registry import Benchmark
from tests.bench.setup import Setup, part, rounds

MOST = 4
"""Adapters of the small model that take part."""
BATCHES_SHARE = 0.5
"""Of the time until the deadline, where there is one; the traffic gets the rest."""


@dataclass(frozen=True)
class Plan:
    """What is measured how often.

    Attributes:
        batches: the sizes of each contender's batches.
        stream: the traffic's requests.
        rounds: of the batches, at most.
        traffic: rounds of the traffic, at most.
        tokens: of each prompt and of each answer in a batch.
        gain: how many times the published way's tokens per second the traffic must reach; None demands nothing.
    """

    batches: Mapping[str, Sequence[int]]
    stream: Stream
    rounds: int
    traffic: int
    tokens: int = 64
    gain: float | None = 2.0


ALL_SIZES = dict.fromkeys(ABOUT, (1, 4, 8))
SHORT = Plan({**ALL_SIZES, PLAIN: (1, 8), TWO: (1, 8), PUBLISHED: (1, 8)}, USUAL, rounds=3, traffic=3, tokens=32)
FULL = Plan(ALL_SIZES, Stream(requests=24), rounds=7, traffic=7)
Load: TypeAlias = tuple[str, int]
"""A contender, and the size of its batch."""


def run(folder: Path, full: bool) -> Outcome:
    """On this machine's processor, with the demo's two models and the small one's adapters."""
    setup = Setup(prepare(), engine_dtype(), (*ENGINE, *NO_CACHE))
    couple = Couple(prepare_small(), {adapter.name: adapter.folder for adapter in small_adapters()[:MOST]})
    return measure(setup, couple, FULL if full else SHORT)


def measure(setup: Setup, couple: Couple, plan: Plan) -> Outcome:
    """Start all, load them in turns.

    Args:
        setup: what they run on; its model is the large one.
        couple: what steers it.
        plan: what is measured.
    """
    with tempfile.TemporaryDirectory() as scratch:
        print("starting three servers and the published way: three minutes or so", flush=True)
        with all_started(setup, couple, Path(scratch)) as contenders:
            samples = asyncio.run(Measurement(setup, couple, plan, contenders).taken())
    about = {**setup.about, "tokens": plan.tokens, "stream": str(plan.stream), "batches": plan.batches}
    return replace(
        summed_up(samples, setup.model, couple.small, plan.gain),
        parameters={**about, "small": couple.small.name, "adapters": list(couple.adapters)},
    )


@dataclass(frozen=True)
class Measurement:
    """All contenders, ready to be measured."""

    setup: Setup
    couple: Couple
    plan: Plan
    contenders: Contenders

    async def taken(self) -> Samples:
        """The batches, then the traffic."""
        async with AsyncExitStack() as stack:
            clients = {
                server.name: await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
                for server in self.contenders.servers
            }
            asked = {name: clients.get(SERVER.get(name, "")) for name in ABOUT}
            await self._warm(asked)
            return Samples(self.plan.tokens, await self._batches(asked), await self._traffic(asked))

    async def _warm(self, asked: Mapping[str, httpx.AsyncClient | None]) -> None:
        """Every adapter with every strength built and in its slot, every allocation made."""
        for name, client in asked.items():
            for first in range(0, self.couple.pairs, 8):
                models = [self.couple.model(name, number) for number in range(first, first + 8)]
                await self._batch(client, models, tokens=4)

    # -- batches

    async def _batches(self, asked: Mapping[str, httpx.AsyncClient | None]) -> dict[Load, list[BatchTime]]:
        times: dict[Load, list[BatchTime]] = {}
        for number in rounds(self.plan.rounds, part(self.setup.deadline, BATCHES_SHARE)):
            for name, size in turns(self.plan.batches, number):
                await asyncio.sleep(self.setup.settle)
                models = [self.couple.model(name, place) for place in range(size)]
                times.setdefault((name, size), []).append(await self._batch(asked[name], models, self.plan.tokens))
            print(f"round {number + 1} of {self.plan.rounds}", flush=True)
        return times

    async def _batch(self, client: httpx.AsyncClient | None, models: Sequence[str], tokens: int) -> BatchTime:
        """What a server takes, or without one the published way."""
        # Prompts that no cache has seen.
        prompts = [random.choices(self.setup.prompts, k=self.plan.tokens) for _ in models]
        if client is None:
            return await asyncio.to_thread(self.contenders.published.run, Batch(prompts, models, tokens))
        bodies = [body(model, prompt, tokens) for model, prompt in zip(models, prompts, strict=True)]
        return batch_time(await asyncio.gather(*(ask(client, each) for each in bodies)), tokens)

    # -- traffic

    async def _traffic(self, asked: Mapping[str, httpx.AsyncClient | None]) -> dict[str, list[float]]:
        """Tokens per second of each contender, round by round."""
        rates: dict[str, list[float]] = {name: [] for name in ABOUT}
        for number in rounds(self.plan.traffic, self.setup.deadline):
            coming = arrivals(number, self.plan.stream, self.setup.prompts)
            for name in list(ABOUT)[:: (1, -1)[number % 2]]:
                await asyncio.sleep(self.setup.settle)
                seconds = await self._answered(asked[name], requests(coming, name, self.couple))
                rates[name].append(sum(request.tokens for request in coming) / seconds)
            print(f"traffic, round {number + 1} of {self.plan.traffic}", flush=True)
        return rates

    async def _answered(self, client: httpx.AsyncClient | None, coming: Sequence[Arrival]) -> float:
        """Seconds that a server takes, or without one the published way."""
        if client is None:
            return await batched(self.contenders.published, coming, self.plan.stream.concurrent)
        return await streamed(client, coming, self.plan.stream.concurrent)


def turns(batches: Mapping[str, Sequence[int]], number: int) -> list[Load]:
    """What is measured in a round, batches of one size after each other; every other round goes backward."""
    loads = [(name, size) for name, sizes in batches.items() for size in sizes]
    return sorted(loads, key=lambda load: load[1])[:: (1, -1)[number % 2]]


def requests(coming: Sequence[Arrival], name: str, couple: Couple) -> list[Arrival]:
    """The same lengths at the same times, for what a contender is asked."""
    return [replace(request, model=couple.model(name, number)) for number, request in enumerate(coming)]


def batch_time(answers: Sequence[Answer], tokens: int) -> BatchTime:
    """What the answers of a batch took; the step is the mean one of the answer that began last.

    So it is right also where steps are so short that a server sends the tokens of several at once.
    """
    last = max(answers, key=lambda answer: answer.arrivals[0])
    began, ended = min(answer.sent for answer in answers), max(answer.arrivals[-1] for answer in answers)
    step = (last.arrivals[-1] - last.arrivals[0]) / (tokens - 1)
    return BatchTime(last.arrivals[0] - began, step, ended - began)


BENCHMARK = Benchmark("proxy_speed", "proxy-tuning beside the large model alone, and beside the published way", run)
