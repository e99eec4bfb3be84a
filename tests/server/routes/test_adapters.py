"""/v1/adapters: list, show, publish from a source, tag and remove."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from loraloom.adapters.store import Store
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from loraloom.server.gate import body
from loraloom.server.gate.gate import Gate
from tests.server.conftest import Publish
from tests.server.fakes import FakeEngine
from tests.server.replies import error_of, told
from tests.server.routes.conftest import Serve, damage_tag, unchanged

ADAPTERS = "/v1/adapters"


async def test_an_empty_store(client: httpx.AsyncClient) -> None:
    assert (await client.get(ADAPTERS)).json() == {"object": "list", "data": []}


async def test_the_list_has_names_tags_and_versions(client: httpx.AsyncClient, publish: Publish) -> None:
    publish("sql", tag="stable")
    publish("sql")
    publish("org/date", base=None)
    assert (await client.get(ADAPTERS)).json()["data"] == [
        {"name": "org/date", "tags": {"latest": 1}, "versions": [1]},
        {"name": "sql", "tags": {"latest": 2, "stable": 1}, "versions": [1, 2]},
    ]


async def test_one_that_cannot_be_read_or_has_just_gone_hides_itself_only(
    client: httpx.AsyncClient,
    publish: Publish,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("date")
    publish("sql")
    damage_tag(store, "sql")
    names = store.names
    monkeypatch.setattr(store, "names", lambda folded: [*names(folded), "gone"])
    for _ in range(3):
        assert [each["name"] for each in (await client.get(ADAPTERS)).json()["data"]] == ["date"]
    assert len([record for record in caplog.records if "left out of lists" in record.getMessage()]) == 1
    assert told(await client.get(f"{ADAPTERS}/sql")) == (500, "record_damaged")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "sqk", None),
        ("DELETE", "sqk", None),
        ("DELETE", "sql/versions/9", None),
        ("PUT", "sql/tags/stable", {"version": 9}),
        ("PUT", "sqk/tags/stable", {"version": 1}),
    ],
)
async def test_what_there_is_not(
    client: httpx.AsyncClient, publish: Publish, store: Store, method: str, path: str, body: Any
) -> None:
    publish("sql")
    with unchanged(store):
        reply = await client.request(method, f"{ADAPTERS}/{path}", json=body)
    assert told(reply) == (404, "model_not_found")
    assert "sql" in error_of(reply)["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "a b", None),
        ("GET", "..%2F..%2Fetc%2Fpasswd", None),
        ("GET", "a/b/c", None),
        ("GET", "sql/versions", None),
        ("DELETE", ".hidden", None),
        ("DELETE", "sql@1", None),
        ("PUT", "sql/tags/1", {"version": 1}),
        ("PUT", "sql/tags/a b", {"version": 1}),
    ],
)
async def test_names_and_tags_that_do_not_follow_the_grammar(
    client: httpx.AsyncClient, publish: Publish, store: Store, method: str, path: str, body: Any
) -> None:
    publish("sql")
    with unchanged(store):
        reply = await client.request(method, f"{ADAPTERS}/{path}", json=body)
    assert told(reply) == (400, "invalid_model")


async def test_a_tag_moves_and_moves_back(client: httpx.AsyncClient, publish: Publish, store: Store) -> None:
    for _ in range(2):
        publish("org/sql")
    for version in (1, 2, 1):
        reply = await client.put(f"{ADAPTERS}/org/sql/tags/stable", json={"version": version})
        assert (reply.status_code, reply.json()) == (200, {"name": "org/sql", "tag": "stable", "version": version})
        assert store.tags("org/sql")["stable"] == version
    assert len(store.tag_history("org/sql", "stable")) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"version":"x"}',
        b'{"version":1.5}',
        b'{"version":1,"more":2}',
        b"\xff",
        b"[" * 10_000,
    ],
)
async def test_a_tag_without_a_proper_version(
    client: httpx.AsyncClient, publish: Publish, store: Store, content: bytes
) -> None:
    publish("sql")
    with unchanged(store):
        headers = {"content-type": "application/json"}
        reply = await client.put(f"{ADAPTERS}/sql/tags/stable", content=content, headers=headers)
    assert told(reply) == (400, "invalid_body")


async def test_a_body_over_the_limit_in_chunks(serve: Serve, publish: Publish) -> None:
    publish("sql")

    async def chunks() -> Any:
        for _ in range(4):
            yield b" " * 500

    headers = {"content-type": "application/json"}
    reply = await serve(max_body_bytes=1024).put(f"{ADAPTERS}/sql/tags/a", content=chunks(), headers=headers)
    assert told(reply) == (413, "body_too_large")


async def test_one_version_is_removed(
    client: httpx.AsyncClient, publish: Publish, store: Store, gate: Gate, engine: FakeEngine
) -> None:
    first, _ = publish("org/sql", tag="stable"), publish("org/sql")
    async with gate.leases.hold(first.canonical, first.digest):
        pass
    reply = await client.delete(f"{ADAPTERS}/org/sql/versions/1")
    assert (reply.status_code, reply.json()) == (200, {"name": "org/sql", "removed": [1], "tags": {"stable": None}})
    assert [version.number for version in store.versions("org/sql")] == [2]
    assert engine.held == set()


async def test_every_version_is_removed_and_numbers_do_not_come_again(
    client: httpx.AsyncClient, publish: Publish
) -> None:
    for _ in range(2):
        publish("sql")
    assert (await client.delete(f"{ADAPTERS}/sql")).json()["removed"] == [1, 2]
    assert (await client.get(f"{ADAPTERS}/sql")).status_code == 404
    assert publish("sql").number == 3


@pytest.mark.parametrize("version", ["x", "-1", "1.5", "latest", "99999999999999999999999"])
async def test_a_version_that_is_no_number(client: httpx.AsyncClient, publish: Publish, version: str) -> None:
    publish("sql")
    reply = await client.delete(f"{ADAPTERS}/sql/versions/{version}")
    assert reply.status_code in (400, 404)
    assert error_of(reply)


async def test_a_removed_adapter_stays_until_its_last_request(
    client: httpx.AsyncClient, publish: Publish, gate: Gate, engine: FakeEngine
) -> None:
    record = publish("sql")
    async with gate.leases.hold(record.canonical, record.digest):
        with engine.using(record.canonical):
            assert (await client.delete(f"{ADAPTERS}/sql")).status_code == 200
            assert engine.held == {"sql@1"}
    assert engine.held == set()


async def test_removing_and_publishing_at_once(client: httpx.AsyncClient, publish: Publish, store: Store) -> None:
    """Each version that was told as removed is gone, and no other."""
    for _ in range(3):
        publish("sql")
    replies = await asyncio.gather(*(client.delete(f"{ADAPTERS}/sql/versions/{n}") for n in (1, 2, 3, 1, 2)))
    statuses = [reply.status_code for reply in replies]
    assert statuses.count(200) == 3
    assert statuses.count(404) == 2
    assert store.names() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "sql"},
        {"source": "/x"},
        {"name": 1, "source": "/x"},
        {"name": "sql", "source": "/x", "more": 1},
        [],
    ],
)
async def test_fields_that_do_not_fit(serve: Serve, store: Store, body: Any) -> None:
    with unchanged(store):
        reply = await serve(allowed_sources=["/"]).post(ADAPTERS, json=body)
    assert told(reply) == (400, "invalid_body")
    assert "errors.pydantic.dev" not in error_of(reply)["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null"])
async def test_what_is_not_json(client: httpx.AsyncClient, content: bytes) -> None:
    reply = await client.post(ADAPTERS, content=content, headers={"content-type": "application/json"})
    assert told(reply) == (400, "invalid_body")


@pytest.mark.parametrize("media", ["", "text/plain", "application/octet-stream", "application/x-tar"])
async def test_another_content_type(client: httpx.AsyncClient, media: str) -> None:
    reply = await client.post(ADAPTERS, content=b"x", headers={"content-type": media} if media else {})
    assert told(reply) == (415, "wrong_content_type")


async def test_removing_a_version_takes_its_mixtures_out_of_the_engine_too(
    client: httpx.AsyncClient, publish: Publish, gate: Gate, engine: FakeEngine
) -> None:
    for name in ("a", "b", "c"):
        publish(name)
    for mixture in ("a+b", "b+c"):
        assert (await client.post("/v1/mixtures", json={"adapter": mixture})).status_code == 200
    assert (await client.delete(f"{ADAPTERS}/a")).status_code == 200
    assert engine.held == {"1*b@1+1*c@1"}
    kept = gate.mixtures.kept_bytes
    assert (await client.delete(f"{ADAPTERS}/c/versions/1")).status_code == 200
    assert engine.held == set()
    assert 0 == gate.mixtures.kept_bytes < kept


async def test_what_was_taken_from_a_key_while_its_body_came_is_taken(
    client: httpx.AsyncClient, gate: Gate, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "LATE", 0.0)
    publish("team/sql")
    ring = KeyRing(store)
    secret = ring.create("team", Terms(role="publish", adapters=("team/*",))).text
    gate.keys.look()

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"version":'
        ring.update("team", lambda terms: replace(terms, publish=("team/date",)))
        gate.keys.look()
        yield b" 1}"

    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    with unchanged(store):
        reply = await client.put(f"{ADAPTERS}/team/sql/tags/stable", content=slow(), headers=headers)
    assert reply.status_code == 403, reply.text
