"""Requests of different adapters and of the base, asked for in one batch or one after the other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import httpx

from tests.e2e.serving import BASE, chat_body


@dataclass(frozen=True)
class Case:
    """One request of the batch: the base or an adapter, and a prompt."""

    adapter: str | None
    prompt: str

    @property
    def model(self) -> str:
        """What goes into the request's `model`."""
        return self.adapter or BASE


Answers: TypeAlias = dict[Case, tuple[int, ...]]
"""The generated token ids of every case."""


async def answers(url: str, wanted: Sequence[Case], length: int, *, together: bool) -> Answers:
    """Greedy answers of at most `length` tokens, asked for in one batch or one after the other."""
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:

        async def ask(case: Case) -> tuple[int, ...]:
            body = chat_body(case.model, case.prompt, max_tokens=length, return_token_ids=True)
            reply = await client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            return tuple(reply.json()["choices"][0]["token_ids"])

        if together:
            return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))
        return {case: await ask(case) for case in wanted}
