"""Asking a server, several requests at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloom.server.proxy.evaluation.errors import EvaluationFailed

if TYPE_CHECKING:
    import httpx

_TIMEOUT, _CONNECT = 900, 60
"""Seconds for an answer, and for reaching the server."""
_SHOWN = 300

Request = Mapping[str, Any]
"""The body of a chat completion."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        text: of the answer.
        prompt_tokens: of the question with everything around it.
        output_tokens: of the answer, its end included.
        cut: whether it was longer than it could be.
    """

    text: str
    prompt_tokens: int
    output_tokens: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers to some requests in their order, and the seconds until the last one was there."""

    answers: tuple[Answer, ...]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Of all answers together."""
        return sum(answer.output_tokens for answer in self.answers) / self.seconds


class Asker:
    """Asks one server."""

    def __init__(self, client: "httpx.AsyncClient", concurrency: int) -> None:
        """
        Args:
            client: with the server's address.
            concurrency: requests at once.
        """
        self._client = client
        self.concurrency = concurrency

    async def ask(self, requests: Sequence[Request]) -> Asked:
        """Ask all of them; raises `EvaluationFailed` when one gets no answer, and gives the others up."""
        places = asyncio.Semaphore(self.concurrency)

        async def answered(request: Request) -> Answer:
            async with places:
                return await self._answer(request)

        began = time.perf_counter()
        tasks = [asyncio.ensure_future(answered(request)) for request in requests]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return Asked(tuple(answers), time.perf_counter() - began)

    async def _answer(self, request: Request) -> Answer:
        import httpx

        try:
            reply = await self._client.post("/v1/chat/completions", json=request)
        except httpx.TransportError as error:
            raise EvaluationFailed(f"the server went away: {type(error).__name__} {error}. Its log says why") from error
        if reply.status_code != 200:
            raise EvaluationFailed(
                f"the server refused {request['model']!r} with {reply.status_code}: {reply.text[:_SHOWN]}"
            )
        return _read(reply.json())


@asynccontextmanager
async def asking(url: str, concurrency: int) -> AsyncIterator[Asker]:
    """An asker of the server at `url`."""
    import httpx

    limits, timeout = httpx.Limits(max_connections=concurrency), httpx.Timeout(_TIMEOUT, connect=_CONNECT)
    # A proxy for the world outside does not reach this machine.
    async with httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False) as client:
        yield Asker(client, concurrency)


def _read(reply: Mapping[str, Any]) -> Answer:
    choice, usage = reply["choices"][0], reply["usage"]
    return Answer(
        text=choice["message"]["content"] or "",
        prompt_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        cut=choice["finish_reason"] == "length",
    )
