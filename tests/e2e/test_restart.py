"""When the engine dies all the same, the supervisor brings it back. Runs last: the other tests share the engine."""

import json
import os
import signal
import time

import httpx
import pytest

from loraloom.demo.catalog import DemoAdapter, demo_adapters
from tests.e2e.serving import START, Server, chat_body, error_of, eventually
from tests.e2e.tenants import PATIENCE

pytestmark = pytest.mark.engine

ASKED = demo_adapters()[:2]


async def test_a_killed_engine_comes_back(server: Server) -> None:
    """Until then clients get 503 with Retry-After, or the end of an answer that had begun; then with its adapters."""
    assert [answer_in(ask(server, adapter)) for adapter in ASKED] == [adapter.examples[0][1] for adapter in ASKED]
    before = in_memory(server)
    assert {f"{adapter.name}@1" for adapter in ASKED} <= before

    async def noted() -> bool:
        return before <= note(server)

    await eventually(noted, PATIENCE)
    engines = server.engine()
    statuses: set[int] = set()
    lost = 0
    os.kill(min(engines), signal.SIGKILL)
    end = time.monotonic() + START
    while time.monotonic() < end:
        try:
            reply = ask(server, ASKED[0])
        except (httpx.ReadError, httpx.RemoteProtocolError):  # the old server had accepted it, and then ended
            lost += 1
            continue
        statuses.add(reply.status_code)
        if reply.status_code == 200:
            break
        assert int(reply.headers["retry-after"]) > 0
        assert error_of(reply)["code"] == "engine_unavailable"
        time.sleep(0.2)
    assert answer_in(reply) == ASKED[0].examples[0][1]
    assert statuses == {200, 503}
    assert lost <= 1, "one at a time was asked, and one server has ended"
    assert not engines & server.engine()

    async def back() -> bool:
        return before <= in_memory(server)

    await eventually(back, PATIENCE)


def ask(server: Server, adapter: DemoAdapter) -> httpx.Response:
    """An adapter's first question, by a connection of its own."""
    body = chat_body(adapter.name, adapter.examples[0][0])
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)


def answer_in(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def in_memory(server: Server) -> set[str]:
    """The versions of the demo adapters that the engine holds."""
    with server.client() as client:
        told = [client.get(f"/v1/adapters/{adapter.name}").json()["versions"] for adapter in demo_adapters()]
    return {version["model"] for versions in told for version in versions if version["residency"] != "disk"}


def note(server: Server) -> set[str]:
    """What the server has written down of that, as it does once a second, for the one that starts next."""
    notes = (server.log.parent / "cache" / "residents").glob("*.json")
    return {name for each in notes for name in json.loads(each.read_bytes())["residents"]}
