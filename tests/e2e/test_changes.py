"""Adapters change while the server runs: seen on the next request, without breaking one in flight."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import Server, chat_body, error_of

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
FIRST, SECOND = demo_adapters()[:2]
LONG = {"max_tokens": 1900, "ignore_eos": True}
"""An answer that takes longer than anything that happens meanwhile."""
FURTHER = 50
"""So many tokens do not come out of a buffer on the way: the engine still computes."""


@pytest.fixture
def changing(server: Server) -> Iterator[str]:
    """A name whose version 1 does the first adapter's task, and version 2 the second's."""
    name = "team/changing"
    added = [server.command("add", str(adapter.folder), "--name", name) for adapter in (FIRST, SECOND)]
    assert all(result.returncode == 0 for result in added), added
    yield name
    server.command("remove", name)


def answers_like(server: Server, model: str) -> str:
    """Which of the two adapters a model behaves as."""
    for adapter in (FIRST, SECOND):
        prompt, expected = adapter.examples[0]
        reply = server.request("POST", CHAT, json=chat_body(model, prompt))
        assert reply.status_code == 200, reply.text
        if reply.json()["choices"][0]["message"]["content"] == expected:
            return adapter.name
    raise AssertionError(f"{model} behaves as neither")


def newest(server: Server, name: str) -> int:
    versions = server.request("GET", f"/v1/adapters/{name}").json()["versions"]
    return max(version["version"] for version in versions)


def test_the_command_line_changes_what_the_next_request_gets(server: Server, changing: str) -> None:
    last = newest(server, changing)
    assert answers_like(server, changing) == SECOND.name
    assert server.command("tag", changing, "stable", str(last - 1)).returncode == 0
    assert answers_like(server, f"{changing}@stable") == FIRST.name
    assert server.command("tag", changing, "stable", str(last)).returncode == 0
    assert answers_like(server, f"{changing}@stable") == SECOND.name
    assert server.command("rollback", changing, "stable").returncode == 0
    assert answers_like(server, f"{changing}@stable") == FIRST.name
    assert server.command("remove", f"{changing}@{last}").returncode == 0
    assert answers_like(server, changing) == FIRST.name
    assert server.command("remove", changing).returncode == 0
    reply = server.request("POST", CHAT, json=chat_body(changing, "hello"))
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")


def test_the_routes_change_what_the_next_request_gets(server: Server) -> None:
    name = "uploaded"
    with server.client() as client:
        for number, adapter in enumerate((FIRST, SECOND), start=1):
            files = [("files", (f.name, f.read_bytes())) for f in sorted(adapter.folder.glob("adapter_*"))]
            reply = client.post("/v1/adapters", data={"name": name, "tag": f"take-{number}"}, files=files)
            assert reply.status_code == 201, reply.text
        again = client.post("/v1/adapters", data={"name": name}, files=files)
        assert again.status_code == 200
        assert again.json()["version"] == reply.json()["version"]
        assert answers_like(server, name) == SECOND.name
        assert answers_like(server, f"{name}@take-1") == FIRST.name
        first = reply.json()["version"] - 1
        assert client.put(f"/v1/adapters/{name}/tags/latest", json={"version": first}).status_code == 200
        assert answers_like(server, name) == FIRST.name
        removed = client.delete(f"/v1/adapters/{name}").json()
        assert removed["removed"] == [first, first + 1]
        assert client.get(f"/v1/adapters/{name}").status_code == 404


def test_a_removal_lets_a_request_in_flight_go_on(server: Server, changing: str) -> None:
    """It gets the tokens that the same adapter gives under its other name, and nobody else gets in."""
    model, prompt = f"{changing}@{newest(server, changing)}", SECOND.examples[0][0]

    async def scenario() -> tuple[int, list[int]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            async with running(client, chat_body(model, prompt, **LONG)) as answer:
                removal = await client.delete(f"/v1/adapters/{changing}")
                assert removal.status_code == 200, removal.text
                refused = await client.post(CHAT, json=chat_body(model, "hello"))
                await answer.more(FURTHER)
            return refused.status_code, answer.tokens

    refused, tokens = asyncio.run(scenario())
    assert refused == 404
    body = chat_body(SECOND.name, prompt, max_tokens=len(tokens), ignore_eos=True, return_token_ids=True)
    assert server.request("POST", CHAT, json=body).json()["choices"][0]["token_ids"] == tokens


@dataclass(frozen=True)
class Running:
    """A request that is being answered.

    Attributes:
        tokens: those that have come.
        reading: takes them as they come.
    """

    tokens: list[int]
    reading: asyncio.Task[None]

    async def more(self, count: int) -> None:
        """Return when so many more tokens have come."""
        wanted = len(self.tokens) + count
        while len(self.tokens) < wanted:
            if self.reading.done():
                self.reading.result()
                raise AssertionError(f"the answer has ended after {len(self.tokens)} tokens")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(client: httpx.AsyncClient, body: dict[str, object]) -> AsyncIterator[Running]:
    """Be answered for the length of a block, from the first token on, and leave; the answer must be longer."""
    tokens: list[int] = []

    async def read() -> None:
        async for part in parts(client, {**body, "return_token_ids": True}):
            tokens.extend(part.get("token_ids") or ())

    answer = Running(tokens, asyncio.ensure_future(read()))
    try:
        await answer.more(1)
        yield answer
        assert not answer.reading.done(), f"the answer has ended after {len(tokens)} tokens"
    finally:
        answer.reading.cancel()
        await asyncio.wait({answer.reading})


async def parts(client: httpx.AsyncClient, body: dict[str, object]) -> AsyncIterator[dict[str, Any]]:
    """A streamed answer, as it comes."""
    async with client.stream("POST", CHAT, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200, await reply.aread()
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))["choices"][0]


async def stream(client: httpx.AsyncClient, body: dict[str, object]) -> str:
    """A streamed answer, as text."""
    return "".join([part["delta"].get("content") or "" async for part in parts(client, body)])


def test_verify_and_show_from_the_command_line(server: Server, changing: str, filled_store: Path) -> None:
    shown = server.command("show", changing)
    assert shown.returncode == 0
    assert "latest" in shown.stdout
    assert server.command("verify").returncode == 0
    assert changing in server.command("list").stdout
