"""Adapters change while the server runs: seen on the next request, without breaking one in flight."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import Server, chat_body, error_of, eventually

pytestmark = pytest.mark.engine

FIRST, SECOND = demo_adapters()[:2]
LONG = {"max_tokens": 120, "ignore_eos": True}
"""An answer of some seconds."""


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
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(model, prompt), timeout=120)
        assert reply.status_code == 200, reply.text
        if reply.json()["choices"][0]["message"]["content"] == expected:
            return adapter.name
    raise AssertionError(f"{model} behaves as neither")


def newest(server: Server, name: str) -> int:
    versions = httpx.get(f"{server.url}/v1/adapters/{name}").json()["versions"]
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
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(changing, "hello"))
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


def test_a_removal_lets_a_request_in_flight_finish(server: Server, changing: str) -> None:
    """Its answer is that of an undisturbed request, and afterwards the engine's copy is free."""
    model = f"{changing}@{newest(server, changing)}"
    body = chat_body(model, SECOND.examples[0][0], **LONG)

    async def scenario() -> tuple[str, str, int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            undisturbed = await stream(client, body)
            running = asyncio.ensure_future(stream(client, body))
            await eventually(lambda: held(client, changing, model))
            removal = await client.delete(f"/v1/adapters/{changing}")
            assert removal.status_code == 200, removal.text
            refused = await client.post("/v1/chat/completions", json=chat_body(model, "hello"))
            return undisturbed, await running, refused.status_code

    undisturbed, answer, refused = asyncio.run(scenario())
    assert answer == undisturbed
    assert refused == 404


async def held(client: httpx.AsyncClient, name: str, model: str, requests: int = 1) -> bool:
    """Whether at least so many requests hold a version, and the engine has it in memory."""
    versions = (await client.get(f"/v1/adapters/{name}")).json()["versions"]
    version = next(version for version in versions if version["model"] == model)
    return bool(version["in_flight"] >= requests and version["residency"] != "disk")


async def stream(client: httpx.AsyncClient, body: dict[str, object]) -> str:
    """A streamed answer, as text."""
    text = ""
    async with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as reply:
        assert reply.status_code == 200, await reply.aread()
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                text += json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
    return text


def test_verify_and_show_from_the_command_line(server: Server, changing: str, filled_store: Path) -> None:
    shown = server.command("show", changing)
    assert shown.returncode == 0
    assert "latest" in shown.stdout
    assert server.command("verify").returncode == 0
    assert changing in server.command("list").stdout
