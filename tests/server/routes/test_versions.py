"""What clients are told of a version: all that is known, and where it is now."""

from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.adapters.names import parse
from loraloom.server.gate.gate import Gate
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, SERVED, Publish
from tests.server.fakes import FakeEngine
from tests.server.routes.conftest import Serve

ADAPTERS = "/v1/adapters"


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
