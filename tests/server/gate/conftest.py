"""Leases of directories that need not be there, in an engine without a model."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from loraloom.server.gate.gate import Gate
from loraloom.server.gate.leases import Leases
from tests.server.conftest import CAPACITY
from tests.server.fakes import FakeEngine
from tests.server.gate.application import Model, application, client_of
from tests.server.gate.leasing import Blobs, InlineExecutor, Request, settled

BuildLeases = Callable[..., Leases]
RequestFor = Callable[..., Any]


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What asyncio reports of tasks and their errors: nothing, at the end of the test."""
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    loop.set_default_executor(InlineExecutor())
    gc.freeze()  # so that only the test's own objects are looked through at its end
    yield reported
    await settled()
    gc.collect()
    gc.unfreeze()
    assert reported == []


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def build_leases(engine: FakeEngine, blobs: Blobs) -> BuildLeases:
    def leases(patience: float = 60.0) -> Leases:
        return Leases(engine, blobs, CAPACITY, patience)

    return leases


@pytest.fixture
def leases(build_leases: BuildLeases) -> Leases:
    return build_leases()


@pytest.fixture
async def request_for(leases: Leases, engine: FakeEngine) -> AsyncIterator[RequestFor]:
    """A callable `await request_for(name) -> Request`, after everything has come to rest."""
    made: list[Request] = []

    async def start(name: str) -> Request:
        made.append(Request(leases, engine, name))
        await settled()
        return made[-1]

    yield start
    for request in made:
        await request.leave()


@pytest.fixture
def model(engine: FakeEngine) -> Model:
    return Model(engine)


@pytest.fixture
def app(model: Model, gate: Gate) -> Starlette:
    return application(model, gate)


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as made:
        yield made
