"""/v1/adapters: list, show, publish from a source, tag and remove."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.adapters.names import parse
from loraloom.adapters.store import Store
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.gate.gate import Gate
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, SERVED, SMALL, SMALL_BASE, BuildGate, Publish
from tests.server.fakes import FakeEngine
from tests.server.replies import error_of, told
from tests.server.routes.conftest import Serve, unchanged

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


async def test_one_adapter_with_all_that_is_known(client: httpx.AsyncClient, publish: Publish, gate: Gate) -> None:
    record = publish("org/sql", rank=4, by="tester", provenance={"from": "a test"})
    shown = (await client.get(f"{ADAPTERS}/org/sql")).json()
    assert shown["name"] == "org/sql"
    assert shown["tags"] == {"latest": 1}
    (version,) = shown["versions"]
    assert version.pop("created").startswith("20")
    assert version.pop("facts")["update"]["modules"] == 1
    assert version == {
        "version": 1,
        "model": "org/sql@1",
        "digest": record.digest,
        "rank": 4,
        "base": SERVED.digest,
        "base_name": BASE,
        "by": "tester",
        "provenance": {"from": "a test"},
        "residency": "disk",
        "pinned": False,
        "in_flight": 0,
        "damaged": None,
    }
    async with gate.leases.hold("org/sql@1", record.digest):
        (version,) = (await client.get(f"{ADAPTERS}/org/sql")).json()["versions"]
        assert (version["residency"], version["in_flight"]) == ("cpu", 1)
    (version,) = (await client.get(f"{ADAPTERS}/org/sql")).json()["versions"]
    assert (version["residency"], version["in_flight"]) == ("cpu", 0)


async def test_each_version_has_a_residency_of_its_own(
    client: httpx.AsyncClient, publish: Publish, gate: Gate, engine: FakeEngine
) -> None:
    records = [publish("sql") for _ in range(3)]
    for record in records[:2]:
        async with gate.leases.hold(record.canonical, record.digest):
            pass
    gate.leases.pin({"sql@2"})

    async def told() -> list[tuple[str, bool]]:
        versions = (await client.get(f"{ADAPTERS}/sql")).json()["versions"]
        return [(version["residency"], version["pinned"]) for version in versions]

    with engine.using("sql@1"):
        assert await told() == [("slot", False), ("cpu", True), ("disk", False)]
        engine.silent = True
        assert await told() == [("cpu", False), ("cpu", True), ("disk", False)]


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


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """The folder from which the server may fetch."""
    return tmp_path / "allowed"


async def test_publishing_from_a_source(serve: Serve, allowed: Path, store: Store) -> None:
    client = serve(allowed_sources=[str(allowed)])
    folder = small_adapter(allowed / "mine", seed=1)
    body = {"name": "org/sql", "source": str(folder), "tag": "stable"}
    reply = await client.post(ADAPTERS, json=body)
    assert reply.status_code == 201
    assert reply.json()["model"] == "org/sql@1"
    assert reply.json()["base"] == SERVED.digest
    assert store.tags("org/sql") == {"latest": 1, "stable": 1}
    again = await client.post(ADAPTERS, json=body)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    small_adapter(allowed / "other", seed=2)
    second = await client.post(ADAPTERS, json={"name": "org/sql", "source": str(allowed / "other")})
    assert (second.status_code, second.json()["version"]) == (201, 2)
    assert store.verify() == []


async def test_sources_are_closed_without_a_setting(client: httpx.AsyncClient, tmp_path: Path, store: Store) -> None:
    folder = small_adapter(tmp_path / "mine")
    with unchanged(store):
        reply = await client.post(ADAPTERS, json={"name": "sql", "source": str(folder)})
    assert told(reply) == (400, "not_available")
    assert "allowed_sources" in error_of(reply)["message"]
    assert error_of(reply)["param"] == "source"


@pytest.mark.parametrize(
    "source",
    [
        "{root}/allowed-not/mine",
        "{root}/allowed/../secret/mine",
        "{root}/allowed/x/../../secret/mine",
        "{root}/allowed/%2e%2e/secret/mine",
        "{root}/allowed/..\\secret/mine",
        "{root}/allowed/mine::file://{root}/secret/mine",
        "file://{root}/allowed/mine",
        "{root}",
        "/",
        "",
        "allowed/mine",
        "hf:org/mine",
        "s3://bucket-of-others/mine",
        "s3://bucket",
        "https://hub/models-not/x",
        "https://hub/models/%2E%2e/x",
        "http://169.254.169.254/latest",
    ],
)
async def test_sources_outside_of_what_is_allowed(serve: Serve, tmp_path: Path, store: Store, source: str) -> None:
    for folder in ("allowed", "allowed-not", "secret"):
        small_adapter(tmp_path / folder / "mine")
    prefixes = [f"{tmp_path}/allowed", "s3://bucket/adapters/", "https://hub/models"]
    client = serve(allowed_sources=prefixes)
    with unchanged(store):
        reply = await client.post(ADAPTERS, json={"name": "sql", "source": source.format(root=tmp_path)})
    assert told(reply) == (400, "not_available")


@pytest.mark.parametrize("prefix", ["{root}/allowed", "{root}/allowed/", "{root}/allowed/mine", "{root}", "/"])
async def test_prefixes_that_allow_a_source(serve: Serve, tmp_path: Path, prefix: str) -> None:
    folder = small_adapter(tmp_path / "allowed/mine")
    client = serve(allowed_sources=["s3://elsewhere", prefix.format(root=tmp_path)])
    assert (await client.post(ADAPTERS, json={"name": "sql", "source": str(folder)})).status_code == 201


async def test_a_source_that_is_not_there(serve: Serve, allowed: Path, store: Store) -> None:
    with unchanged(store):
        body = {"name": "sql", "source": f"{allowed}/absent"}
        reply = await serve(allowed_sources=[str(allowed)]).post(ADAPTERS, json=body)
    assert told(reply) == (400, "source_unreachable")


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


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("../evil", 400, "invalid_model"),
        ("/etc/cron.d/x", 400, "invalid_model"),
        ("a\0b", 400, "invalid_model"),
        ("sql@3", 400, "invalid_model"),
        ("x" * 65, 400, "invalid_model"),
        ("SQL", 409, "name_taken"),
        (BASE, 400, "invalid_body"),
    ],
)
async def test_names_that_cannot_be_taken(
    serve: Serve, allowed: Path, store: Store, publish: Publish, name: str, status: int, code: str
) -> None:
    publish("sql")
    folder = small_adapter(allowed / "mine", seed=999)
    with unchanged(store):
        body = {"name": name, "source": str(folder)}
        reply = await serve(allowed_sources=[str(allowed)]).post(ADAPTERS, json=body)
    assert told(reply) == (status, code)


async def test_an_adapter_of_another_base_is_not_published(
    serve: Serve, allowed: Path, store: Store, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = BaseFingerprint({"model.layers.0.self_attn.q_proj": (32, 8)}, tokenizer=None)
    monkeypatch.setattr(gate.base, "fingerprint", other)
    folder = small_adapter(allowed / "mine")
    client = serve(allowed_sources=[str(allowed)])
    with unchanged(store):
        reply = await client.post(ADAPTERS, json={"name": "sql", "source": str(folder)})
    assert told(reply) == (400, "base_mismatch")


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


async def test_publishing_measures_what_the_adapter_does(
    client: httpx.AsyncClient, gate: Gate, engine: FakeEngine, tmp_path: Path
) -> None:
    folder = small_adapter(tmp_path / "sql")
    files = [("file", (name, (folder / name).read_bytes())) for name in ("adapter_config.json", WEIGHTS_FILE)]
    assert (await client.post(ADAPTERS, data={"name": "sql"}, files=files)).status_code == 201
    assert (await client.post("/v1/mixtures", json={"adapter": "0.5*sql", "name": "half"})).status_code == 201
    await gate.effects.idle()
    for name in ("sql", "half"):
        (version,) = (await client.get(f"{ADAPTERS}/{name}")).json()["versions"]
        assert version["facts"]["effect"]["max_logprob_change"] > 1
    engine.loads.clear()
    assert (await client.post(ADAPTERS, data={"name": "sql"}, files=files)).status_code == 200
    await gate.effects.idle()
    assert engine.loads == []


@pytest.mark.parametrize(("width", "base", "name"), [(8, SERVED, BASE), (4, SMALL, SMALL_BASE)])
async def test_a_proxy_tuned_server_publishes_for_the_model_that_it_fits(
    serve: Serve, pair_gate: Gate, tmp_path: Path, width: int, base: BaseFingerprint, name: str
) -> None:
    folder = small_adapter(tmp_path / "sql", width=width)
    files = [("file", (name, (folder / name).read_bytes())) for name in ("adapter_config.json", WEIGHTS_FILE)]
    reply = await serve(pair_gate).post(ADAPTERS, data={"name": "sql"}, files=files)
    assert (reply.status_code, reply.json()["base"], reply.json()["base_name"]) == (201, base.digest, name)


@pytest.mark.parametrize("said", [SMALL_BASE, f"/models/{SMALL_BASE}"])
async def test_or_for_the_one_that_is_said(
    serve: Serve, build_gate: BuildGate, served_pair: ServedPair, allowed: Path, store: Store, said: str
) -> None:
    client = serve(build_gate(served_pair, proxy_small=served_pair.small.model, allowed_sources=[str(allowed)]))
    fitting, other = (small_adapter(allowed / f"{width}", width=width) for width in (4, 8))
    reply = await client.post(ADAPTERS, json={"name": "sql", "source": str(fitting), "base": said})
    assert (reply.status_code, reply.json()["base_name"]) == (201, SMALL_BASE)
    with unchanged(store):
        reply = await client.post(ADAPTERS, json={"name": "other", "source": str(other), "base": said})
        assert told(reply) == (400, "base_mismatch")
        reply = await client.post(ADAPTERS, json={"name": "other", "source": str(other), "base": "another"})
        assert told(reply) == (400, "invalid_body")
    assert "adapters of 'tiny' and 'tinier', and not of 'another'" in error_of(reply)["message"]
    assert error_of(reply)["param"] == "base"


async def test_what_fits_both_has_to_be_said(serve: Serve, build_gate: BuildGate, allowed: Path, store: Store) -> None:
    pair = ServedPair(*(ServedBase(name, SERVED, store, f"org/{name}") for name in ("large", "small")), store)
    client = serve(build_gate(pair, proxy_small="org/small", allowed_sources=[str(allowed)]))
    body = {"name": "sql", "source": str(small_adapter(allowed / "sql"))}
    with unchanged(store):
        assert told(await client.post(ADAPTERS, json=body)) == (400, "base_mismatch")
    reply = await client.post(ADAPTERS, json={**body, "base": "small"})
    assert (reply.status_code, reply.json()["base_name"]) == (201, "small")
    assert (await client.get("/v1/models/sql")).json()["applied"] == "proxy"


async def test_what_is_to_be_converted_has_to_be_said_too(serve: Serve, pair_gate: Gate, tmp_path: Path) -> None:
    folder = small_adapter(tmp_path / "dora")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    files = [("file", (name, (folder / name).read_bytes())) for name in ("adapter_config.json", WEIGHTS_FILE)]
    reply = await serve(pair_gate).post(ADAPTERS, data={"name": "dora"}, files=files)
    assert told(reply) == (400, "invalid_body")
    assert "name the model it was trained on, 'tiny' or 'tinier'" in error_of(reply)["message"]


async def test_of_an_adapter_that_steers_every_strength_counts(
    serve: Serve, pair_gate: Gate, publish_small: Publish, engine: FakeEngine
) -> None:
    publish_small("sql")
    client, leases = serve(pair_gate), pair_gate.leases

    async def shown() -> tuple[str, int, bool]:
        (version,) = (await client.get(f"{ADAPTERS}/sql")).json()["versions"]
        return version["residency"], version["in_flight"], version["pinned"]

    assert await shown() == ("disk", 0, False)
    async with AsyncExitStack() as held:
        for model in ("sql", "sql~0.5"):
            choice = pair_gate.selector.settle_own(parse(model))
            assert choice.content is not None
            await held.enter_async_context(pair_gate.mixtures.kept(choice.content))
            await held.enter_async_context(leases.hold(choice.model, choice.content))
        assert await shown() == ("cpu", 2, False)
        with engine.using("sql@1~0.5"):
            assert await shown() == ("slot", 2, False)
            engine.silent = True
            assert await shown() == ("cpu", 2, False)
        leases.pin({"sql@1~1"})
    engine.silent = False
    assert await shown() == ("cpu", 0, True)
    assert (await client.delete(f"{ADAPTERS}/sql")).status_code == 200
    assert engine.held == set()
