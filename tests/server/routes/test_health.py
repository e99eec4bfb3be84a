"""GET /ready."""

import shutil
from pathlib import Path

import httpx
import pytest

from loraloom.adapters.store import Store
from loraloom.server.gate.gate import Gate
from tests.server.conftest import BASE
from tests.server.fakes import FakeEngine
from tests.server.replies import told
from tests.server.routes.conftest import Serve


async def test_ready(client: httpx.AsyncClient) -> None:
    reply = await client.get("/ready")
    assert (reply.status_code, reply.json()) == (200, {"status": "ready", "model": BASE})


async def test_not_with_a_dead_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.dead = True
    reply = await client.get("/ready")
    assert told(reply) == (503, "engine_unavailable")
    assert "retry-after" in reply.headers


async def test_nor_when_the_engine_dies_behind_the_gate(
    serve: Serve, gate: Gate, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The route looks by itself."""
    monkeypatch.setattr(type(gate), "stages", ())
    engine.dead = True
    reply = await serve(gate).get("/ready")
    assert told(reply) == (503, "engine_unavailable")
    assert reply.headers["retry-after"] == "5"


async def test_nor_without_a_store(client: httpx.AsyncClient, store: Store) -> None:
    shutil.rmtree(Path(store.url))
    assert told(await client.get("/ready")) == (503, "store_unavailable")
