"""/v1/mixtures: build ahead, and publish."""

import asyncio
from typing import Any

import httpx
import pytest

from loraloom.adapters.store import Store
from loraloom.server.gate.gate import Gate
from tests.server.conftest import BASE, MAX_RANK, SMALL_BASE, Publish
from tests.server.fakes import FakeEngine
from tests.server.replies import error_of, told
from tests.server.routes.conftest import Serve, unchanged

MIXTURES = "/v1/mixtures"


@pytest.fixture(autouse=True)
def ab(publish: Publish) -> None:
    """Adapters a and b of rank 2, and c of rank 3."""
    publish("a")
    publish("b")
    publish("c", rank=3)


async def test_building_ahead_lets_the_engine_hold_it(
    client: httpx.AsyncClient, gate: Gate, engine: FakeEngine, store: Store
) -> None:
    reply = await client.post(MIXTURES, json={"adapter": "0.4*b+0.6*a"})
    assert reply.status_code == 200
    assert reply.json() == {"model": "0.6*a@1+0.4*b@1", "rank": 4, "error": 0.0, "version": None}
    assert engine.held == {"0.6*a@1+0.4*b@1"}
    assert gate.leases.residents == ["0.6*a@1+0.4*b@1"]
    assert store.names() == ["a", "b", "c"]


async def test_building_ahead_takes_no_place_from_others(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for weight in range(1, 6):
        assert (await client.post(MIXTURES, json={"adapter": f"{weight}*a+b"})).status_code == 200
    assert len(engine.held) == 3
    assert engine.unloads == []


async def test_what_the_engine_takes_to_load_is_nobody_elses_turn(
    client: httpx.AsyncClient, gate: Gate, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = asyncio.Event()

    async def hanging(*_: object) -> None:
        loading.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(gate.leases, "fill", hanging)
    ahead = []
    for weight in range(1, gate.building.at_a_time + 1):
        loading.clear()
        ahead.append(asyncio.ensure_future(client.post(MIXTURES, json={"adapter": f"{weight}*a+b"})))
        await asyncio.wait_for(loading.wait(), 30)
    async with asyncio.timeout(30), gate.building.taken("anonymous"):
        pass
    for each in ahead:
        each.cancel()
    await asyncio.gather(*ahead, return_exceptions=True)


async def test_publishing(client: httpx.AsyncClient, store: Store) -> None:
    wanted = {"adapter": {"mix": {"a": 0.6, "b@1": 0.4}}, "name": "team/both", "tag": "stable"}
    first, again = [await client.post(MIXTURES, json=wanted) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    built = first.json()
    assert (built["model"], built["rank"], built["error"]) == ("team/both@1", 4, 0.0)
    version = built["version"]
    assert version["digest"] == again.json()["version"]["digest"]
    assert (version["model"], version["base_name"], version["by"]) == ("team/both@1", BASE, "anonymous")
    assert version["provenance"]["mixture"] == "0.6*a@1+0.4*b@1"
    assert store.tags("team/both") == {"latest": 1, "stable": 1}


@pytest.mark.usefixtures("offline_here")
@pytest.mark.parametrize(
    ("method", "rank"),
    [("ties(density=0.5)", 3), ("dare_linear(density=0.5,rank=2)", 2), ("dare_ties(density=0.5)", 3)],
)
async def test_methods_on_whole_matrices_can_be_published(client: httpx.AsyncClient, method: str, rank: int) -> None:
    reply = await client.post(MIXTURES, json={"adapter": f"{method}:a+c", "name": "both"})
    assert (reply.status_code, reply.json()["rank"]) == (201, rank)
    assert 0 < reply.json()["error"] < 1


@pytest.mark.usefixtures("offline_here")
async def test_a_rank_over_the_servers_limit_can_be_published_truncated(
    client: httpx.AsyncClient, publish: Publish
) -> None:
    publish("large", rank=MAX_RANK + 4)
    reply = await client.post(MIXTURES, json={"adapter": "a+0.5*large", "name": "both", "rank": 5})
    assert (reply.status_code, reply.json()["rank"]) == (201, 5)
    assert 0 < reply.json()["error"] < 1


@pytest.mark.usefixtures("offline_here")
async def test_one_adapter_is_a_mixture_of_one(client: httpx.AsyncClient, store: Store) -> None:
    reply = await client.post(MIXTURES, json={"adapter": "a", "name": "copy"})
    assert reply.status_code == 201
    assert store.versions("copy")[0].digest == store.versions("a")[0].digest


REFUSALS: dict[str, tuple[Any, int, str]] = {
    "not JSON": (None, 400, "invalid_body"),
    "no adapter": ({}, 400, "invalid_body"),
    "an unknown field": ({"adapter": "a+b", "weights": [1]}, 400, "invalid_body"),
    "bad grammar": ({"adapter": "a++b"}, 400, "invalid_model"),
    "an unknown method": ({"adapter": "magic:a+b"}, 400, "invalid_model"),
    "a parameter that the method does not take": ({"adapter": "svd(density=0.5):a+b"}, 400, "invalid_model"),
    "a parameter that is missing": ({"adapter": "ties:a+b", "name": "x"}, 400, "invalid_model"),
    "an unknown term": ({"adapter": "a+nobody"}, 404, "model_not_found"),
    "unequal ranks": ({"adapter": "lorahub:a+c"}, 400, "invalid_mixture"),
    "nothing": ({"adapter": "a+-1*a"}, 400, "invalid_body"),
    "a proxy strength": ({"adapter": "a+b~0.5"}, 400, "not_available"),
    "a proxy strength that would be published": ({"adapter": "a+b~0.5", "name": "x"}, 400, "invalid_body"),
    "a method that needs a name": ({"adapter": "ties(density=0.5):a+b"}, 400, "invalid_body"),
    "a tag without a name": ({"adapter": "a+b", "tag": "stable"}, 400, "invalid_body"),
    "a rank without a name": ({"adapter": "a+b", "rank": 2}, 400, "invalid_body"),
    "a rank of none": ({"adapter": "a+b", "name": "x", "rank": 0}, 400, "invalid_body"),
    "the base's name": ({"adapter": "a+b", "name": BASE}, 400, "invalid_body"),
    "another name of the base": ({"adapter": "a+b", "name": "tiny-alias"}, 400, "invalid_body"),
    "nothing to build": ({"adapter": "a"}, 400, "invalid_body"),
    "a tag that is none": ({"adapter": "a+b", "name": "x", "tag": "a b"}, 400, "invalid_model"),
    "a name in another spelling": ({"adapter": "a+b", "name": "A"}, 409, "name_taken"),
    "a name that is none": ({"adapter": "a+b", "name": "a b"}, 400, "invalid_model"),
    "too large weights": ({"adapter": {"mix": {"a": 1e308, "b": 1}}}, 400, "invalid_mixture"),
    "infinite weights": ({"adapter": {"mix": {"a": "Infinity"}}}, 400, "invalid_model"),
    "a hundred terms": ({"adapter": "+".join(["a"] * 100)}, 400, "invalid_mixture"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_is_refused_and_how(name: str, client: httpx.AsyncClient, store: Store, engine: FakeEngine) -> None:
    body, status, code = REFUSALS[name]
    before = store.names()
    sent = {"content": b"{", "headers": {"content-type": "application/json"}} if body is None else {"json": body}
    reply = await client.post(MIXTURES, **sent)
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)
    assert store.names() == before
    assert engine.held == set()


@pytest.mark.usefixtures("offline_here")
@pytest.mark.parametrize("name", [None, "both"])
@pytest.mark.parametrize("method", ["", "svd(rank=2):"])
async def test_ranks_that_take_too_long(
    client: httpx.AsyncClient,
    gate: Gate,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
    method: str,
) -> None:
    """a and c have rank 5 together."""
    monkeypatch.setattr("loraloom.server.gate.selection.MOST_RANKS", 4)
    with unchanged(store):
        reply = await client.post(MIXTURES, json={"adapter": f"{method}a+c", "name": name})
    assert told(reply) == (400, "invalid_mixture")
    assert "add up to 5, and this server mixes up to 4" in error_of(reply)["message"]
    assert gate.mixtures.kept_bytes == 0
    assert (await client.post(MIXTURES, json={"adapter": f"{method}a+b", "name": name})).status_code in (200, 201)


@pytest.fixture
def proxied(serve: Serve, pair_gate: Gate, publish_small: Publish) -> httpx.AsyncClient:
    """A proxy-tuned server with a, b and c of the large model, and s and t of the small one."""
    publish_small("s")
    publish_small("t")
    return serve(pair_gate)


@pytest.mark.parametrize(
    ("adapter", "model"),
    [
        ("s+t~0.5", "1*s@1+1*t@1~0.5"),
        ("0.5*a+s", "1*s@1+0.5*a@1~1"),
        ("s~0.5", "s@1~0.5"),
        ({"mix": {"a": 0.6, "b": 0.4}}, "0.6*a@1+0.4*b@1"),
    ],
)
async def test_a_proxy_tuned_server_builds_ahead_with_the_strength(
    proxied: httpx.AsyncClient, engine: FakeEngine, adapter: object, model: str
) -> None:
    reply = await proxied.post(MIXTURES, json={"adapter": adapter})
    assert (reply.status_code, reply.json()["model"]) == (200, model)
    assert engine.held == {model}


@pytest.mark.usefixtures("offline_here")
@pytest.mark.parametrize(("adapter", "base"), [("s+t", SMALL_BASE), ("a+b", BASE)])
async def test_it_publishes_for_the_model_of_the_adapters(
    proxied: httpx.AsyncClient, store: Store, adapter: str, base: str
) -> None:
    reply = await proxied.post(MIXTURES, json={"adapter": adapter, "name": "both"})
    assert (reply.status_code, reply.json()["version"]["base_name"]) == (201, base)
    assert store.versions("both")[0].base == store.versions(adapter[0])[0].base


async def test_adapters_of_different_models_cannot_be_published_as_one(
    proxied: httpx.AsyncClient, store: Store
) -> None:
    with unchanged(store):
        reply = await proxied.post(MIXTURES, json={"adapter": "a+s", "name": "both"})
    assert told(reply) == (400, "invalid_body")
    assert "of different models, tinier and tiny: a request can mix them" in error_of(reply)["message"]


async def test_nor_can_a_strength(proxied: httpx.AsyncClient, store: Store) -> None:
    with unchanged(store):
        reply = await proxied.post(MIXTURES, json={"adapter": "s+t~0.5", "name": "both"})
    assert told(reply) == (400, "invalid_body")
    assert error_of(reply)["param"] == "adapter"
