"""A client that floods a server: so many requests at a time, the next as soon as one is answered."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import httpx

from tests.bench.errors import InvalidRun
from tests.bench.load import Body, pieces


@dataclass(eq=False)
class Stream:
    """One request of the flood, answered or not.

    Attributes:
        sent: when, in seconds of `time.perf_counter`.
        arrivals: when each token of the answer so far arrived, of the same clock.
    """

    sent: float
    arrivals: list[float] = field(default_factory=list)


@asynccontextmanager
async def flooding(client: httpx.AsyncClient, bodies: Iterator[Body], width: int) -> AsyncIterator[list[Stream]]:
    """Keep `width` requests open for the length of a block; those that are open at its end are broken off.

    Yields:
        All of them, in the order in which they were sent; more come while the block runs.

    Raises:
        InvalidRun: one of them was refused.
    """
    streams: list[Stream] = []

    async def loop() -> None:
        for body in bodies:
            stream = Stream(time.perf_counter())
            streams.append(stream)
            async for _ in pieces(client, body):
                stream.arrivals.append(time.perf_counter())

    tasks = [asyncio.create_task(loop()) for _ in range(width)]
    try:
        yield streams
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [end for end in ends if isinstance(end, Exception)]
    if failures:
        raise InvalidRun(f"the flood ran dry: {failures[0]!r}")


@dataclass(frozen=True)
class Flow:
    """What the streams of a flood got within a stretch of time.

    Attributes:
        tokens_per_second: of all of them.
        step: seconds between two tokens of a stream, their median.
        longest: the most seconds that one waited for its first token, or waits at the end of the stretch.
    """

    tokens_per_second: float
    step: float
    longest: float


def flow(streams: Sequence[Stream], begin: float, end: float) -> Flow:
    """What streams got between two moments of `time.perf_counter`.

    Raises:
        InvalidRun: they got nothing.
    """
    tokens = sum(begin <= arrival <= end for stream in streams for arrival in stream.arrivals)
    gaps = [
        after - before
        for stream in streams
        for before, after in pairwise(stream.arrivals)
        if begin <= before and after <= end
    ]
    waits = [_first(stream, end) - stream.sent for stream in streams if begin <= _first(stream, end) <= end]
    if not gaps:
        raise InvalidRun(f"the flood got {tokens} tokens in {end - begin:.1f} s")
    return Flow(tokens / (end - begin), statistics.median(gaps), max(waits, default=0.0))


def _first(stream: Stream, end: float) -> float:
    """When its first token arrived; the end of the stretch if that was not before."""
    return min(stream.arrivals[0], end) if stream.arrivals else end
