"""Our routes behind a real gate, as clients reach them."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from loraloom.adapters.store import Store
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.middleware import GateMiddleware
from loraloom.server.routes import routers
from tests.server.conftest import BuildGate

Serve = Callable[..., httpx.AsyncClient]


def application(gate: Gate) -> FastAPI:
    app = FastAPI(openapi_url=None)
    for router in routers():
        app.include_router(router)
    app.add_middleware(GateMiddleware)
    app.state.loraloom = gate
    return app


@pytest.fixture
async def serve(build_gate: BuildGate) -> AsyncIterator[Serve]:
    """A callable `serve(gate=None, **settings) -> client` of a server with these settings."""
    clients: list[httpx.AsyncClient] = []

    def start(gate: Gate | None = None, **settings: Any) -> httpx.AsyncClient:
        app = application(gate or build_gate(**settings))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://server"))
        return clients[-1]

    yield start
    for client in clients:
        await client.aclose()


@pytest.fixture
def client(serve: Serve, gate: Gate) -> httpx.AsyncClient:
    return serve(gate)


@contextmanager
def unchanged(store: Store) -> Iterator[None]:
    """The block leaves the store as it is: the same names and versions, nothing damaged and nothing left over."""

    def state() -> dict[str, Any]:
        return {name: (store.versions(name), store.tags(name)) for name in store.names()}

    before = state()
    yield
    assert state() == before
    check_whole(store)


def check_whole(store: Store) -> None:
    """Nothing in the store is damaged or left over, once what was just published has been measured and noted."""
    end = time.monotonic() + 60
    while found := store.verify():
        assert time.monotonic() < end, found
        time.sleep(0.01)


def damage_tag(store: Store, name: str, tag: str = "latest") -> None:
    """Let the record of a tag's first move be none."""
    record = Path(store.url) / "names" / name / "tags" / tag / "000001.json"
    record.chmod(0o644)
    record.write_text("{}")
