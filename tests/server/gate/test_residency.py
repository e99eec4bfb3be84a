"""Pins and the warm start, on a real store and an engine that notes every fault."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.adapters.names import Adapter, Selection, parse, parse_adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.leases import Leases
from loraloom.server.gate.note import Note
from loraloom.server.gate.residency import Pace, Residency
from tests.server.conftest import BuildGate, Publish
from tests.server.fakes import FakeEngine

PACE = Pace(pins=0.01, note=0.01)


@pytest.fixture
def note(tmp_path: Path) -> Note:
    return Note(tmp_path / "note.json")


@pytest.fixture
def leases(gate: Gate) -> Leases:
    return gate.leases


@pytest.fixture
def residency(gate: Gate, note: Note) -> Residency:
    return Residency(gate.leases, gate.store.pins, gate.selector.settle_own, note, PACE)


@asynccontextmanager
async def running(residency: Residency) -> AsyncIterator[None]:
    """For the length of a block; it must not end by itself."""
    task = asyncio.ensure_future(residency.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.002)


async def use(leases: Leases, record: VersionRecord) -> None:
    async with leases.hold(record.canonical, record.digest):
        pass


def pin(store: Store, *selections: str) -> None:
    for selection in selections:
        store.pin(parse_adapter(selection))


async def test_a_pinned_adapter_is_loaded_and_stays(
    residency: Residency, leases: Leases, engine: FakeEngine, store: Store, publish: Publish
) -> None:
    records = [publish(name) for name in ("sql", "a", "b", "c", "d")]
    pin(store, "sql")
    async with running(residency):
        await until(lambda: leases.resident("sql@1"))
        for record in records[1:] * 2:
            await use(leases, record)
        assert leases.pinned("sql@1")
        assert engine.loads.count("sql@1") == 1
        store.unpin(Adapter("sql"))
        await until(lambda: not leases.pinned("sql@1"))
        for record in records[1:]:
            await use(leases, record)
        assert not leases.resident("sql@1")


async def test_a_pin_follows_its_tag(
    residency: Residency, leases: Leases, engine: FakeEngine, store: Store, publish: Publish
) -> None:
    """The new version is loaded before the old one may go."""
    publish("sql", tag="stable")
    pin(store, "sql@stable")
    async with running(residency):
        await until(lambda: leases.pinned("sql@1"))
        engine.stuck.add("sql@2")
        publish("sql", tag="stable")
        await until(lambda: "sql@2" in engine.loads)
        assert leases.pinned("sql@1")
        engine.stuck.clear()
        engine.go.set()
        await until(lambda: leases.pinned("sql@2"))
        assert not leases.pinned("sql@1")


async def test_pins_that_move_all_at_once(
    note: Note, build_gate: BuildGate, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as can be pinned move in a memory that has one place more; the second waits in vain, and comes again."""
    gate = build_gate(queue_timeout=0.5)
    leases, residency = gate.leases, Residency(gate.leases, store.pins, gate.selector.settle_own, note, PACE)
    for name in ("a", "b"):
        publish(name)
        pin(store, name)
    async with running(residency):
        await until(lambda: leases.pinned("a@1") and leases.pinned("b@1"))
        for name in ("a", "b"):
            publish(name)
        await until(lambda: leases.pinned("a@2") and leases.pinned("b@2"))
        monkeypatch.setattr(leases, "_patience", 60.0)  # nobody comes again for what is used once
        await use(leases, publish("c"))


async def test_two_pins_of_one_version_take_one_place(
    residency: Residency, leases: Leases, store: Store, publish: Publish
) -> None:
    publish("sql", tag="stable")
    publish("date")
    pin(store, "sql", "sql@stable", "sql@1", "date")
    async with running(residency):
        await until(lambda: leases.pinned("sql@1") and leases.pinned("date@1"))


async def test_the_oldest_pins_count_and_the_others_are_named(
    residency: Residency, leases: Leases, store: Store, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("d", "c", "b", "a"):
        publish(name)
    pins = [Adapter(name) for name in ("d", "c", "b", "a")]
    residency.pins = lambda: pins
    async with running(residency):
        await until(lambda: leases.pinned("d@1") and leases.pinned("c@1"))
        await asyncio.sleep(5 * PACE.pins)
    assert caplog.text.count("of 4 pinned adapters 2 are kept in memory, and b, a not") == 1
    assert "--max-cpu-loras" in caplog.text


async def test_a_pin_of_what_this_server_cannot_serve(
    residency: Residency, leases: Leases, store: Store, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish("large", rank=64)
    publish("sql")
    pin(store, "large", "sql")
    async with running(residency):
        await until(lambda: leases.pinned("sql@1"))
    assert "the pin of large has no effect on this server: adapter 'large@1' has rank 64" in caplog.text


async def test_a_pinned_adapter_that_the_engine_refuses_is_told_once_and_tried_again(
    residency: Residency,
    leases: Leases,
    engine: FakeEngine,
    store: Store,
    publish: Publish,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("sql")
    publish("date")
    pin(store, "sql", "date")
    engine.refused.add("sql@1")
    async with running(residency):
        await until(lambda: engine.loads.count("sql@1") > 3)
        assert leases.pinned("date@1")
        assert caplog.text.count("sql@1 is pinned and cannot be loaded") == 1
        engine.refused.clear()
        await until(lambda: leases.pinned("sql@1"))


async def test_a_store_out_of_reach_changes_nothing(
    residency: Residency, leases: Leases, store: Store, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish("sql")
    pin(store, "sql")
    async with running(residency):
        await until(lambda: leases.pinned("sql@1"))

        def fail() -> list[Adapter]:
            raise StoreError("the store is gone")

        residency.pins = fail
        await until(lambda: "the pins cannot be read: the store is gone" in caplog.text)
        assert leases.pinned("sql@1")


async def test_a_restart_brings_back_what_was_in_memory(
    residency: Residency, leases: Leases, engine: FakeEngine, note: Note, publish: Publish, build_gate: BuildGate
) -> None:
    records = {name: publish(name) for name in ("a", "b", "c")}
    async with running(residency):
        for name in ("a", "b", "c", "a"):
            await use(leases, records[name])
        await until(lambda: set(note.read()) == {"a@1", "b@1", "c@1"})
    assert note.read() == ["a@1", "c@1", "b@1"]
    engine.held.clear()
    engine.loads.clear()
    again = build_gate()
    async with running(Residency(again.leases, again.store.pins, again.selector.settle_own, note, PACE)):
        await until(lambda: len(again.leases.residents) == 3)
    assert engine.loads == ["a@1", "c@1", "b@1"]
    assert again.leases.residents == ["a@1", "c@1", "b@1"]


async def test_what_cannot_come_back_is_passed_over(
    residency: Residency, leases: Leases, engine: FakeEngine, store: Store, note: Note, publish: Publish
) -> None:
    for name in ("gone", "refused", "sql"):
        publish(name)
    store.remove("gone")
    engine.refused.add("refused@1")
    note.write(["gone@1", "refused@1", "no name", "never@7", "sql@1"])
    async with running(residency):
        await until(lambda: leases.resident("sql@1"))
        await until(lambda: note.read() == ["sql@1"])


async def test_the_last_that_comes_back_is_noted(gate: Gate, note: Note, publish: Publish) -> None:
    """The note has it before it is tried, lacks it meanwhile, and has it again."""
    publish("sql")
    note.write(["slow@1", "sql@1"])
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def settle(selection: Selection) -> Choice:
        if str(selection) == "slow@1":
            asyncio.run_coroutine_threadsafe(until(lambda: note.read() == ["sql@1"]), loop).result()
        else:
            loop.call_soon_threadsafe(tried.set)
        return gate.selector.settle_own(selection)

    async with running(Residency(gate.leases, gate.store.pins, settle, note, Pace(note=0.1))):
        await tried.wait()
        assert note.read() == []
        await until(lambda: gate.leases.resident("sql@1"))
        await until(lambda: note.read() == ["sql@1"])


async def test_what_brings_the_engine_down_is_not_tried_again(
    residency: Residency, engine: FakeEngine, note: Note, publish: Publish
) -> None:
    """While an adapter is brought back the note lacks it, and has those that are still to come."""
    for name in ("a", "b", "c"):
        publish(name)
    note.write(["a@1", "b@1", "c@1"])
    engine.stuck.add("b@1")
    async with running(residency):
        await until(lambda: "b@1" in engine.loads)
        await asyncio.sleep(5 * PACE.note)
        assert note.read() == ["a@1", "c@1"]
        engine.stuck.clear()
        engine.go.set()
        await until(lambda: set(note.read()) == {"a@1", "b@1", "c@1"})


async def test_a_request_goes_before_what_comes_back(
    residency: Residency, leases: Leases, engine: FakeEngine, note: Note, publish: Publish
) -> None:
    for name in ("a", "b"):
        publish(name)
    wanted = publish("wanted")
    note.write(["a@1", "b@1"])
    engine.stuck.add("a@1")
    async with running(residency):
        await until(lambda: "a@1" in engine.loads)
        await use(leases, wanted)
        assert engine.loads == ["a@1", "wanted@1"]
        engine.stuck.clear()
        engine.go.set()
        await until(lambda: leases.resident("b@1"))


async def test_no_more_comes_back_than_there_is_room_for(
    residency: Residency, leases: Leases, engine: FakeEngine, note: Note, publish: Publish
) -> None:
    names = [f"{letter}@1" for letter in "abcde"]
    for name in names:
        publish(name.partition("@")[0])
    note.write(names)
    async with running(residency):
        await until(lambda: set(note.read()) == set(names[:3]))
    assert engine.loads == names[:3]


async def test_a_restart_brings_back_mixtures(
    residency: Residency, leases: Leases, engine: FakeEngine, note: Note, publish: Publish, build_gate: BuildGate
) -> None:
    for name in ("a", "b"):
        publish(name)
    selector = build_gate().selector
    choice = selector.settle_own(parse("0.25*a+b"))
    assert choice.content is not None
    async with running(residency), leases.hold(choice.model, choice.content):
        await until(lambda: note.read() == ["1*b@1+0.25*a@1"])
    engine.held.clear()
    again = build_gate()
    async with running(Residency(again.leases, again.store.pins, again.selector.settle_own, note, PACE)):
        await until(lambda: again.leases.residents == ["1*b@1+0.25*a@1"])
