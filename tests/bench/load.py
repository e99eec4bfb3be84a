"""A closed loop of clients: each sends its next request when its last answer has arrived."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from tests.bench.errors import InvalidRun

Body: TypeAlias = Mapping[str, object]
"""The JSON of a request to /v1/completions, with `stream` set."""
PATIENCE = 120.0
"""Seconds that one answer may take."""


@dataclass(frozen=True)
class Answer:
    """One streamed answer.

    Attributes:
        text: all of it.
        sent: when the request was sent, in seconds of `time.perf_counter`.
        arrivals: when each piece of it arrived, of the same clock; vLLM sends a piece for each token.
    """

    text: str
    sent: float
    arrivals: tuple[float, ...]

    @property
    def first(self) -> float:
        """Seconds from the request to its first piece."""
        return self.arrivals[0] - self.sent


@dataclass(frozen=True)
class Load:
    """What a number of requests took.

    Attributes:
        seconds: from the first request to the last answer.
        answers: one for each request, in the order in which they ended.
    """

    seconds: float
    answers: tuple[Answer, ...]

    @property
    def requests_per_second(self) -> float:
        return len(self.answers) / self.seconds

    @property
    def first_token_ms(self) -> float:
        """Milliseconds to the first piece of an answer, their median."""
        return 1000 * statistics.median(answer.first for answer in self.answers)


async def closed_loop(client: httpx.AsyncClient, bodies: Sequence[Body], clients: int) -> Load:
    """Send every body once, at most `clients` at a time.

    Raises:
        InvalidRun: a request was not answered with a stream of text.
    """
    waiting = iter(bodies)
    answers: list[Answer] = []

    async def loop(mine: Iterator[Body]) -> None:
        for body in mine:
            answers.append(await ask(client, body))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(loop(waiting))
    return Load(time.perf_counter() - began, tuple(answers))


async def ask(client: httpx.AsyncClient, body: Body) -> Answer:
    """One streamed answer; raises `InvalidRun` when there is none."""
    sent, arrivals, texts = time.perf_counter(), [], []
    async for piece in pieces(client, body):
        arrivals.append(time.perf_counter())
        texts.append(piece)
    return Answer("".join(texts), sent, tuple(arrivals))


async def pieces(client: httpx.AsyncClient, body: Body) -> AsyncIterator[str]:
    """The pieces of one streamed answer as they arrive; raises `InvalidRun` when there is none."""
    none = True
    async with client.stream("POST", "/v1/completions", json=body, timeout=PATIENCE) as response:
        async for line in response.aiter_lines():
            piece = _piece(line)
            if piece is not None:
                none = False
                yield piece
    if response.status_code != 200 or none:
        raise InvalidRun(f"{client.base_url} answered {body['model']!r} with {response.status_code} and no text")


def _piece(line: str) -> str | None:
    """The text in a line of server-sent events; None in one without."""
    data = line.removeprefix("data: ")
    if data == line or data == "[DONE]":
        return None
    event: dict[str, Any] = json.loads(data)
    choices = event.get("choices")
    return str(choices[0]["text"]) if choices else None
