"""Adapters come into main memory without a slot, and stay there when they are pinned."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.demo.catalog import DemoAdapter, demo_adapters
from tests.e2e.serving import CPU_TIER, SLOTS, Server, chat_body, eventually, tiers
from tests.e2e.test_changes import stream

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
FIRST, *OTHERS = demo_adapters()


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


def test_loading_takes_no_slot_from_those_in_use(server: Server, fresh: str) -> None:
    """A pin loads an adapter while others answer; it gets a slot at its first request."""

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            busy = OTHERS[:SLOTS]
            looks: list[list[str]] = []
            bodies = [chat_body(other.name, other.examples[0][0], max_tokens=300, ignore_eos=True) for other in busy]
            enough = asyncio.Event()

            async def keep_asking(body: dict[str, object]) -> None:
                while not enough.is_set():
                    assert await stream(client, body)

            async def look() -> list[str]:
                """Where the adapter is, then all that are busy."""
                looks.append(await tiers(client, [fresh, *(other.name for other in busy)]))
                return looks[-1]

            async def all_have_a_slot() -> bool:
                return (await look())[1:] == ["slot"] * SLOTS

            async def is_loaded() -> bool:
                return (await look())[0] != "disk"

            async def has_a_slot() -> bool:
                return (await look())[0] == "slot"

            answers = asyncio.gather(*map(keep_asking, bodies))
            await eventually(all_have_a_slot)
            assert not await is_loaded()
            Store.open(server.store).pin(Adapter(fresh))
            await eventually(is_loaded)
            await eventually(all_have_a_slot)
            enough.set()
            await answers
            await eventually(all_have_a_slot)
            assert {own for own, *_ in looks} == {"disk", "cpu"}
            assert await ask(client, FIRST, fresh)
            await eventually(has_a_slot)

    asyncio.run(scenario())


def test_a_pinned_adapter_stays_whatever_else_is_asked_for(server: Server, fresh: str) -> None:
    assert server.command("pin", fresh).returncode == 0

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

            async def is_pinned() -> bool:
                return bool((await newest(client, fresh))["pinned"])

            async def is_free() -> bool:
                return not await is_pinned()

            await eventually(is_pinned)
            assert len(OTHERS) > CPU_TIER
            for _ in range(2):
                assert all(await asyncio.gather(*(ask(client, other, other.name) for other in OTHERS)))
            assert (await newest(client, fresh))["residency"] == "cpu"
            assert await ask(client, FIRST, fresh)
            assert server.command("unpin", fresh).returncode == 0
            await eventually(is_free)
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

            await eventually(newest_is_pinned)
            before = (await newest(client, fresh))["model"]
            store.publish(OTHERS[0].folder, fresh)
            await eventually(newest_is_pinned)
            assert await ask(client, OTHERS[0], fresh)
            versions = (await client.get(f"/v1/adapters/{fresh}")).json()["versions"]
            assert [version["pinned"] for version in versions] == [False, True]
            assert versions[0]["model"] == before

    asyncio.run(scenario())
