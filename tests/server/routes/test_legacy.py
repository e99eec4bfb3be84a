"""vLLM's own calls for adapters, on the store."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from loraloom.adapters.store import Store
from loraloom.server.gate.gate import Gate
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, Publish
from tests.server.fakes import FakeEngine
from tests.server.replies import told
from tests.server.routes.conftest import Serve, unchanged

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_adapter(tmp_path / "allowed/sql")


@pytest.fixture
def allowing(serve: Serve, tmp_path: Path) -> httpx.AsyncClient:
    return serve(allowed_sources=[str(tmp_path / "allowed")])


async def test_loading_publishes(allowing: httpx.AsyncClient, folder: Path, store: Store) -> None:
    for _ in range(2):
        body = {"lora_name": "sql", "lora_path": str(folder), "load_inplace": True}
        reply = await allowing.post(LOAD, json=body)
        assert (reply.status_code, reply.text) == (200, "Success: LoRA adapter 'sql' added successfully.")
    assert [version.number for version in store.versions("sql")] == [1]


async def test_unloading_removes_every_version_and_frees_the_engine(
    client: httpx.AsyncClient, publish: Publish, gate: Gate, engine: FakeEngine, store: Store
) -> None:
    records = [publish("sql"), publish("sql")]
    for record in records:
        async with gate.leases.hold(record.canonical, record.digest):
            pass
    assert engine.held == {"sql@1", "sql@2"}
    reply = await client.post(UNLOAD, json={"lora_name": "sql", "lora_int_id": 3})
    assert (reply.status_code, reply.text) == (200, "Success: LoRA adapter 'sql' removed successfully.")
    assert engine.held == set()
    assert store.names() == []


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (LOAD, {"lora_name": "sql", "lora_path": "/elsewhere/sql"}, (400, "not_available")),
        (LOAD, {"lora_name": "../x", "lora_path": "{folder}"}, (400, "invalid_model")),
        (LOAD, {"lora_name": BASE, "lora_path": "{folder}"}, (400, "invalid_body")),
        (LOAD, {"lora_name": "x", "lora_path": "{folder}/../absent"}, (400, "not_available")),
        (LOAD, {"lora_name": "x", "lora_path": "{folder}-absent"}, (400, "source_unreachable")),
        (LOAD, {"lora_name": "x"}, (400, "invalid_body")),
        (LOAD, {"lora_name": 1, "lora_path": "{folder}"}, (400, "invalid_body")),
        (UNLOAD, {"lora_name": "x"}, (404, "model_not_found")),
        (UNLOAD, {"lora_name": "a b"}, (400, "invalid_model")),
        (UNLOAD, {}, (400, "invalid_body")),
    ],
)
async def test_what_is_refused(
    allowing: httpx.AsyncClient, folder: Path, store: Store, path: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    if isinstance(source := body.get("lora_path"), str):
        body = {**body, "lora_path": source.format(folder=folder)}
    with unchanged(store):
        assert told(await allowing.post(path, json=body)) == expected
