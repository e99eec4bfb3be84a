"""When the engine dies all the same, the supervisor brings it back. Runs last: the other tests share the engine."""

import os
import signal
import time

import httpx
import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import START, Server, chat_body, error_of, residency

pytestmark = pytest.mark.engine


def test_a_killed_engine_comes_back(server: Server) -> None:
    """Until then clients get 503 with Retry-After, or the end of an answer that had begun; then with its adapters."""
    engines = server.engine()
    statuses: set[int] = set()
    time.sleep(2)  # the server notes once a second what it holds
    before = in_memory(server)
    # One that needs no place of its own: the memory may be full.
    adapter = next(adapter for adapter in demo_adapters() if f"{adapter.name}@1" in before)
    prompt, expected = adapter.examples[0]
    os.kill(min(engines), signal.SIGKILL)
    end = time.monotonic() + START
    while time.monotonic() < end:
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(adapter.name, prompt), timeout=120)
        statuses.add(reply.status_code)
        if reply.status_code == 200:
            break
        assert int(reply.headers["retry-after"]) > 0
        assert error_of(reply)["code"] == "engine_unavailable"
        time.sleep(0.2)
    assert reply.json()["choices"][0]["message"]["content"] == expected
    assert statuses == {200, 503}
    assert not engines & server.engine()
    end = time.monotonic() + 60
    while not before <= in_memory(server) and time.monotonic() < end:
        time.sleep(0.2)
    assert before <= in_memory(server), "what was in memory has not come back by itself"


def in_memory(server: Server) -> set[str]:
    """The versions of the demo adapters that the engine holds."""
    tiers = {model: tier for adapter in demo_adapters() for model, tier in residency(server, adapter.name).items()}
    return {model for model, tier in tiers.items() if tier != "disk"}
