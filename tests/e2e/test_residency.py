"""Adapters come into main memory without a slot, and stay there when they are pinned."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.demo.catalog import DemoAdapter, demo_adapters
from tests.e2e.serving import CPU_TIER, SLOTS, Server, chat_body, eventually
from tests.e2e.test_changes import stream

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
FIRST, *OTHERS = demo_adapters()
PATIENCE = 30.0
"""Seconds in which a pin must have its effect; the server looks every five."""


@pytest.fixture
def fresh(server: Server) -> Iterator[str]:
    """A name that was never asked for; its adapter does the first one's task."""
    name = "fresh"
    store = Store.open(server.store)
    store.publish(FIRST.folder, name)
    yield name
    store.remove(name)


async def ask(client: httpx.AsyncClient, adapter: DemoAdapter, model: str) -> bool:
    """Whether a model does an adapter's task."""
    prompt, expected = adapter.examples[0]
    reply = await client.post(CHAT, json=chat_body(model, prompt))
    return bool(reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] == expected)


async def newest(client: httpx.AsyncClient, name: str) -> dict[str, object]:
    """What the server tells of an adapter's newest version."""
    version: dict[str, object] = (await client.get(f"/v1/adapters/{name}")).json()["versions"][-1]
    return version


async def slots(client: httpx.AsyncClient) -> set[str]:
    """The demo adapters that have a slot."""
    versions = [await newest(client, adapter.name) for adapter in demo_adapters()]
    return {str(version["model"]) for version in versions if version["residency"] == "slot"}


def test_loading_takes_no_slot_from_those_in_use(server: Server, fresh: str) -> None:
    """A pin loads an adapter while others answer; it gets a slot at its first request."""

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            busy = OTHERS[:SLOTS]
            bodies = [chat_body(other.name, other.examples[0][0], max_tokens=300, ignore_eos=True) for other in busy]
            enough = asyncio.Event()

            async def keep_asking(body: dict[str, object]) -> None:
                while not enough.is_set():
                    assert await stream(client, body)

            answers = asyncio.gather(*map(keep_asking, bodies))

            async def all_have_a_slot() -> bool:
                return await slots(client) == {f"{other.name}@1" for other in busy}

            async def is_loaded() -> bool:
                return bool((await newest(client, fresh))["residency"] != "disk")

            await eventually(all_have_a_slot)
            assert not await is_loaded()
            Store.open(server.store).pin(Adapter(fresh))
            await eventually(is_loaded, PATIENCE)
            assert await all_have_a_slot()
            assert (await newest(client, fresh))["residency"] == "cpu"
            enough.set()
            await answers
            assert await all_have_a_slot()
            assert await ask(client, FIRST, fresh)
            assert (await newest(client, fresh))["residency"] == "slot"

    asyncio.run(scenario())


def test_a_pinned_adapter_stays_whatever_else_is_asked_for(server: Server, fresh: str) -> None:
    assert server.command("pin", fresh).returncode == 0

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

            async def is_pinned() -> bool:
                return bool((await newest(client, fresh))["pinned"])

            async def is_free() -> bool:
                return not await is_pinned()

            await eventually(is_pinned, PATIENCE)
            assert len(OTHERS) > CPU_TIER
            for _ in range(2):
                assert all(await asyncio.gather(*(ask(client, other, other.name) for other in OTHERS)))
            assert (await newest(client, fresh))["residency"] == "cpu"
            assert await ask(client, FIRST, fresh)
            assert server.command("unpin", fresh).returncode == 0
            await eventually(is_free, PATIENCE)
            assert all(await asyncio.gather(*(ask(client, other, other.name) for other in OTHERS)))
            assert (await newest(client, fresh))["residency"] == "disk"

    asyncio.run(scenario())


def test_a_pin_goes_where_its_tag_goes(server: Server, fresh: str) -> None:
    store = Store.open(server.store)
    store.pin(Adapter(fresh))

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

            async def newest_is_pinned() -> bool:
                version = await newest(client, fresh)
                return bool(version["pinned"] and version["residency"] != "disk")

            await eventually(newest_is_pinned, PATIENCE)
            before = (await newest(client, fresh))["model"]
            store.publish(OTHERS[0].folder, fresh)
            await eventually(newest_is_pinned, PATIENCE)
            assert await ask(client, OTHERS[0], fresh)
            versions = (await client.get(f"/v1/adapters/{fresh}")).json()["versions"]
            assert [version["pinned"] for version in versions] == [False, True]
            assert versions[0]["model"] == before

    asyncio.run(scenario())
