"""What all routes share: every error of ours is answered from the table of statuses."""

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, ValidationError

from loraloom.adapters.errors import AdapterNotFound, StoreError
from loraloom.compose.errors import JobNotFound
from loraloom.server.errors import BodyTooLarge, Disconnected, EngineUnavailable
from loraloom.server.gate.gate import Gate
from loraloom.server.routes.gated import Gated, GatedRoute, first_problem
from tests.server.conftest import BASE
from tests.server.replies import error_of, told


class Body(BaseModel):
    number: int
    inner: list[int] = []


def client_of(router: APIRouter, gate: Gate | None = None) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(router)
    app.state.loraloom = gate
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


@pytest.fixture
def router() -> APIRouter:
    return APIRouter(route_class=GatedRoute)


@pytest.mark.parametrize(
    ("error", "expected", "retry"),
    [
        (AdapterNotFound("sql"), (404, "model_not_found"), None),
        (StoreError("gone"), (503, "store_unavailable"), "5"),
        (EngineUnavailable("dead"), (503, "engine_unavailable"), "5"),
        (JobNotFound("gone"), (404, "job_not_found"), None),
    ],
)
async def test_an_error_of_ours(
    router: APIRouter, error: Exception, expected: tuple[int, str], retry: str | None
) -> None:
    @router.get("/")
    async def fail() -> None:
        raise error

    async with client_of(router) as client:
        reply = await client.get("/")
    assert told(reply) == expected
    assert reply.headers.get("retry-after") == retry


async def test_nobody_is_told_that_they_have_left(router: APIRouter) -> None:
    @router.get("/")
    async def leave() -> None:
        raise Disconnected

    async with client_of(router) as client:
        with pytest.raises(Disconnected):
            await client.get("/")


async def test_any_other_error_is_left_to_the_gate(router: APIRouter) -> None:
    @router.get("/")
    async def fail() -> None:
        raise KeyError("unexpected")

    async with client_of(router) as client:
        with pytest.raises(KeyError):
            await client.get("/")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"number":"x"}', "number: Input should be a valid integer"),
        (b'{"number":1,"inner":[1,"x"]}', "inner.1: Input should be a valid integer"),
        (b"{}", "number: Field required"),
        (b"{", "JSON decode error"),
        (b"\xff", "parsing the body"),
    ],
)
async def test_a_body_that_does_not_fit(router: APIRouter, content: bytes, message: str) -> None:
    @router.post("/")
    async def take(body: Body) -> None:
        raise AssertionError("the body does not fit")

    async with client_of(router) as client:
        reply = await client.post("/", content=content, headers={"content-type": "application/json"})
    assert told(reply) == (400, "invalid_body")
    assert message in error_of(reply)["message"]


async def test_an_error_of_ours_while_fastapi_reads_the_body(
    router: APIRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_large(request: Request) -> bytes:
        raise BodyTooLarge("no more than this")

    @router.post("/")
    async def take(body: Body) -> None:
        raise AssertionError("the body has not been read")

    monkeypatch.setattr(Request, "body", too_large)
    async with client_of(router) as client:
        assert told(await client.post("/", json={"number": 1})) == (413, "body_too_large")


async def test_a_route_gets_the_gate_of_its_application(router: APIRouter, gate: Gate) -> None:
    @router.get("/")
    async def name(gate: Gated) -> str:
        return gate.base.name

    async with client_of(router, gate) as client:
        assert (await client.get("/")).json() == BASE


def test_the_first_problem_is_told_with_its_place() -> None:
    with pytest.raises(ValidationError) as refusal:
        Body.model_validate({"number": "x", "inner": "y"})
    assert first_problem(refusal.value.errors()).startswith("number: Input should be")
    with pytest.raises(ValidationError) as refusal:
        Body.model_validate("x")
    assert first_problem(refusal.value.errors()).startswith("Input should be")
