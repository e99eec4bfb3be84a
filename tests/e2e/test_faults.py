"""The engine never dies of an adapter."""

import asyncio
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loraloom.adapters.store import Store
from loraloom.demo.catalog import DemoAdapter, demo_adapters
from tests.e2e.serving import CPU_TIER, SEQUENCES, Server, chat_body, error_of, eventually
from tests.e2e.test_changes import FURTHER, LONG, running

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
VICTIM, *OTHERS = demo_adapters()
CHANGES = itertools.count(1)


@pytest.fixture
def victim(server: Server, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A name of its own with an adapter of its own, and the directory of its stored bytes."""
    store = Store.open(server.store)
    published = store.publish(_slightly_changed(VICTIM, tmp_path), "victim").version
    assert published.digest not in {version.digest for a in demo_adapters() for version in store.versions(a.name)}
    yield published.canonical, store.folder(published.digest)
    if "victim" in store.names():
        store.remove("victim")


def _slightly_changed(adapter: DemoAdapter, folder: Path) -> Path:
    """The same adapter with other bytes, so that harming it harms no other."""
    from safetensors.torch import load_file, save_file

    shutil.copy(adapter.folder / "adapter_config.json", folder)
    tensors = load_file(adapter.folder / "adapter_model.safetensors")
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name].float() * (1 + next(CHANGES) / 1000)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def ask(server: Server, model: str, adapter: DemoAdapter) -> httpx.Response:
    return server.request("POST", CHAT, json=chat_body(model, adapter.examples[0][0]))


def crowd_out(server: Server) -> None:
    """Use as many other adapters as memory holds, so that the next use of any other one loads it again."""
    for adapter in OTHERS[:CPU_TIER]:
        assert ask(server, adapter.name, adapter).status_code == 200


@pytest.mark.parametrize("harm", ["deleted", "truncated", "overwritten", "config"])
def test_a_blob_harmed_behind_the_servers_back(server: Server, victim: tuple[str, Path], harm: str) -> None:
    model, folder = victim
    engines = server.engine()
    assert ask(server, model, VICTIM).status_code == 200
    weights = folder / "adapter_model.safetensors"
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    _harm(folder, harm)
    crowd_out(server)
    reply = ask(server, model, VICTIM)
    assert (reply.status_code, error_of(reply)["code"]) == (500, "adapter_damaged")
    for name, content in whole.items():
        (folder / name).unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    assert weights.stat().st_size
    assert ask(server, model, VICTIM).status_code == 200
    assert server.engine() == engines


def _harm(folder: Path, harm: str) -> None:
    """Harm stored bytes, as a failing disk or a careless person would."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    weights = folder / "adapter_model.safetensors"
    if harm == "deleted":
        shutil.rmtree(folder)
    elif harm == "truncated":
        os.truncate(weights, 1000)
    elif harm == "overwritten":
        weights.write_bytes(weights.read_bytes()[:-4] + b"\xff\xff\xff\xff")
    else:
        (folder / "adapter_config.json").write_text("{}")


def test_a_blob_deleted_under_a_request_in_flight(server: Server, victim: tuple[str, Path]) -> None:
    """The request goes on: the engine's copy is leased and never read again from disk."""
    model, folder = victim
    engines = server.engine()

    async def scenario() -> set[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            async with running(client, chat_body(model, VICTIM.examples[0][0], **LONG)) as answer:
                _harm(folder, "deleted")
                crowd = [client.post(CHAT, json=chat_body(a.name, a.examples[0][0])) for a in OTHERS]
                replies = await asyncio.gather(*crowd)
                await answer.more(FURTHER)
            return {reply.status_code for reply in replies}

    assert asyncio.run(scenario()) == {200}
    assert server.engine() == engines


async def inside(client: httpx.AsyncClient, requests: int) -> bool:
    """Whether so many requests have selected their adapter: they run, or wait for their turn at the edge."""
    text = (await client.get("/metrics")).text
    counted = re.findall(r"^loraloom_(?:waiting|running)_requests\{.*\} (\S+)$", text, re.MULTILINE)
    return sum(map(float, counted)) >= requests


def test_an_adapter_removed_while_requests_for_it_are_queued(server: Server, victim: tuple[str, Path]) -> None:
    """Those that had selected it before are answered; those that come later are told that it is gone."""
    model, _ = victim
    engines = server.engine()

    async def scenario() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            body = chat_body(model, VICTIM.examples[0][0], max_tokens=20, ignore_eos=True)
            async with running(client, {**body, **LONG, "n": SEQUENCES, "temperature": 1}):
                queued = [asyncio.ensure_future(client.post(CHAT, json=body)) for _ in range(24)]
                await eventually(lambda: inside(client, requests=1 + len(queued)))
                assert (await client.delete("/v1/adapters/victim")).status_code == 200
                late = await client.post(CHAT, json=body)
                assert late.status_code == 404
            return [reply.status_code for reply in await asyncio.gather(*queued)]

    assert asyncio.run(scenario()) == [200] * 24
    assert server.engine() == engines


def test_more_adapters_in_flight_than_memory_holds(server: Server) -> None:
    """They wait for a place at the edge; the engine holds no more than it has room for."""
    engines = server.engine()

    async def scenario() -> list[tuple[str, str]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

            async def one(adapter: DemoAdapter) -> tuple[str, str]:
                reply = await client.post(CHAT, json=chat_body(adapter.name, adapter.examples[1][0]))
                return reply.json()["choices"][0]["message"]["content"], adapter.examples[1][1]

            return list(await asyncio.gather(*(one(adapter) for adapter in demo_adapters() * 3)))

    assert all(answer == expected for answer, expected in asyncio.run(scenario()))
    assert server.engine() == engines
