"""When the engine dies all the same, the supervisor brings it back. Runs last: the other tests share the engine."""

import os
import signal
import time

import httpx
import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import START, Server, chat_body, error_of

pytestmark = pytest.mark.engine


def test_a_killed_engine_comes_back(server: Server) -> None:
    """Until then clients get 503 with Retry-After, or the end of an answer that had begun."""
    engines = server.engine()
    statuses: set[int] = set()
    adapter = demo_adapters()[0]
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
