"""More adapters than slots, and more than fit in memory: every answer is the right adapter's."""

import asyncio

import httpx
import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import CPU_TIER, SLOTS, Server, chat_body, eventually, tiers

pytestmark = pytest.mark.engine


async def check(server: Server, rounds: int) -> list[str]:
    """Ask every adapter its own question, all at once and again; return the models whose answer was wrong."""
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

        async def ask(name: str, prompt: str, expected: str) -> str | None:
            reply = await client.post("/v1/chat/completions", json=chat_body(name, prompt))
            right = reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] == expected
            return None if right else f"{name}: {reply.text}"

        wrong = []
        for number in range(rounds):
            questions = [(adapter.name, *adapter.examples[number]) for adapter in demo_adapters()]
            wrong += [answer for answer in await asyncio.gather(*(ask(*q) for q in questions)) if answer]
        return wrong


def test_more_adapters_than_slots_and_than_memory_holds(server: Server) -> None:
    assert len(demo_adapters()) > CPU_TIER > SLOTS
    assert not asyncio.run(check(server, 3))


async def test_the_server_says_what_it_holds(server: Server) -> None:
    """Where nothing is pinned: what was is kept until the server looks again, for some seconds."""
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

        async def nothing_is_pinned() -> bool:
            return "\nloraloom_pinned_adapters 0.0\n" in (await client.get("/metrics")).text

        async def memory_is_full() -> bool:
            told = await tiers(client, [adapter.name for adapter in demo_adapters()])
            return (told.count("slot"), told.count("cpu")) == (SLOTS, CPU_TIER - SLOTS)

        await eventually(nothing_is_pinned)
        assert not await check(server, 1)
        await eventually(memory_is_full)
