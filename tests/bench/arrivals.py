"""Requests of uneven lengths that arrive one after the other, to a server or to static batches."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tests.bench.load import Body, ask
from tests.bench.peft_batches import Batch, PeftProcess
from tests.bench.random_adapters import name_of

PROMPT, TOKENS = 256, 64
"""Tokens of the longest prompt and of the longest answer."""


@dataclass(frozen=True)
class Stream:
    """What arrives.

    Attributes:
        requests: how many.
        gap: the mean seconds between two.
        adapters: how many distinct ones they ask for.
        rank: of these.
        concurrent: how many are answered at a time.
    """

    requests: int = 12
    gap: float = 0.2
    adapters: int = 4
    rank: int = 8
    concurrent: int = 8

    def __str__(self) -> str:
        return f"{self.requests} uneven requests over {self.adapters} adapters, {self.concurrent} at a time"


USUAL = Stream()


@dataclass(frozen=True)
class Arrival:
    """A request, and when it arrives, in seconds from the start."""

    at: float
    model: str
    prompt: tuple[int, ...]
    tokens: int


def arrivals(seed: int, stream: Stream, prompts: range) -> list[Arrival]:
    """Poisson arrivals of uneven prompts and answers; the same seed gives the same.

    Args:
        seed: of the chance.
        stream: how many, of what, how fast.
        prompts: the token ids that prompts consist of.
    """
    chance, at, coming = random.Random(seed), 0.0, []
    for number in range(stream.requests):
        prompt = tuple(chance.choices(prompts, k=chance.randint(16, PROMPT)))
        model = name_of(stream.rank, number % stream.adapters)
        coming.append(Arrival(at, model, prompt, chance.randint(4, TOKENS)))
        at += chance.expovariate(1 / stream.gap)
    return coming


def body(model: str, prompt: Sequence[int], tokens: int) -> Body:
    """A request for exactly so many tokens."""
    fixed = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    return {"model": model, "prompt": prompt, **fixed}


async def streamed(client: httpx.AsyncClient, coming: Sequence[Arrival], concurrent: int) -> float:
    """Seconds until all are answered by a server, which batches them as they come."""
    places, clock = asyncio.Semaphore(concurrent), asyncio.get_running_loop()
    began = clock.time()

    async def one(request: Arrival) -> None:
        await asyncio.sleep(began + request.at - clock.time())
        async with places:
            await ask(client, body(request.model, request.prompt, request.tokens))

    async with asyncio.TaskGroup() as group:
        for request in coming:
            group.create_task(one(request))
    return clock.time() - began


async def batched(process: PeftProcess, coming: Sequence[Arrival], concurrent: int) -> float:
    """The same in static batches: whatever has arrived when the last batch is done, at most `concurrent`."""
    clock = asyncio.get_running_loop()
    began, waiting = clock.time(), list(coming)
    while waiting:
        await asyncio.sleep(max(0.0, began + waiting[0].at - clock.time()))
        batch = [request for request in waiting[:concurrent] if began + request.at <= clock.time()]
        del waiting[: len(batch)]
        await asyncio.to_thread(
            process.run,
            Batch([r.prompt for r in batch], [r.model for r in batch], max(r.tokens for r in batch)),
        )
    return clock.time() - began
