"""Publishing: from which sources, under which names, and for which model."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.adapters.store import Store
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.work import Work
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, SERVED, SMALL, SMALL_BASE, BuildGate, Publish
from tests.server.replies import error_of, told
from tests.server.routes.conftest import Serve, check_whole, unchanged

ADAPTERS = "/v1/adapters"


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
    check_whole(store)


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
        "https://hub/models/.\t./x",
        "https://hub/models/.\r.\n/x",
        "{root}/allowed/.\x7f./secret/mine",
        "{root}/allowed/.\x1f./secret/mine",
        "{root}/allowed/mine ",
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


async def test_what_may_not_be_published_takes_no_place(serve: Serve, build_gate: BuildGate, tmp_path: Path) -> None:
    full = Work(threads=1, waiting=-1)
    client = serve(replace(build_gate(allowed_sources=[str(tmp_path)]), work=full))
    folder = small_adapter(tmp_path / "mine")
    files = [("file", (name, (folder / name).read_bytes())) for name in ("adapter_config.json", WEIGHTS_FILE)]

    async def outcomes(name: str) -> list[tuple[int, str]]:
        source = {"name": name, "source": str(folder)}
        loaded = {"lora_name": name, "lora_path": str(folder)}
        replies = [
            await client.post(ADAPTERS, data={"name": name}, files=files),
            await client.post(ADAPTERS, json=source),
            await client.post("/v1/load_lora_adapter", json=loaded),
            await client.post("/v1/mixtures", json={"adapter": "a+b", "name": name}),
        ]
        return [told(reply) for reply in replies]

    assert await outcomes(BASE) == [(400, "invalid_body")] * 4
    assert await outcomes("free") == [(503, "offline_busy")] * 4
