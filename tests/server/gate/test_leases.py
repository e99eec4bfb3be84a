"""Leases, rule by rule, against an engine that notes every fault."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.methods import EXACT
from loraloom.adapters.mixtures.recipe import Ingredient, Recipe
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.errors import AdapterNotLoaded, TooManyAdapters
from loraloom.server.gate.leases import Leases
from loraloom.server.observe.events import Counted
from tests.server.conftest import CAPACITY
from tests.server.fakes import FakeEngine
from tests.server.gate.conftest import BuildLeases, RequestFor
from tests.server.gate.leasing import Blobs, digest_of, settled

pytestmark = pytest.mark.usefixtures("complaints")


async def test_a_lease_gives_the_directory_of_an_adapter_that_the_engine_holds(
    leases: Leases, engine: FakeEngine, blobs: Blobs
) -> None:
    async with leases.hold("a@1", digest_of("a")) as folder:
        assert folder == Path("/blobs") / digest_of("a")
        assert engine.folders == {"a@1": folder}
        assert leases.resident("a@1")
        assert leases.in_flight("a@1") == 1
        assert engine.held == {"a@1"}
        assert blobs.in_use() == {digest_of("a")}


async def test_an_adapter_stays_in_memory_after_its_last_request(leases: Leases, engine: FakeEngine) -> None:
    for _ in range(3):
        async with leases.hold("a@1", digest_of("a")):
            pass
    assert engine.loads == ["a@1"]
    assert leases.resident("a@1")
    assert leases.in_flight("a@1") == 0


async def test_nothing_is_known_of_other_names(leases: Leases) -> None:
    async with leases.hold("a@1", digest_of("a")):
        assert not leases.resident("b@1")
        assert leases.in_flight("b@1") == 0


async def test_requests_for_one_adapter_load_it_once(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    engine.stuck.add("a@1")
    first, second, third = [await request_for("a@1") for _ in range(3)]
    assert engine.loads == ["a@1"]
    assert leases.in_flight("a@1") == 3
    assert [each.entered for each in (first, second, third)] == [False] * 3
    assert not leases.resident("a@1")
    engine.stuck.clear()
    engine.go.set()
    await settled()
    assert [each.entered for each in (first, second, third)] == [True] * 3
    assert engine.loads == ["a@1"]


async def test_at_most_capacity_adapters_are_in_flight(request_for: RequestFor) -> None:
    held = [await request_for(f"{letter}@1") for letter in "abc"]
    waiting = await request_for("d@1")
    assert all(request.entered for request in held)
    assert not waiting.entered
    await held[1].end()
    assert waiting.entered


async def test_new_adapters_are_let_in_in_the_order_of_their_arrival(request_for: RequestFor) -> None:
    held = [await request_for(f"{letter}@1") for letter in "abc"]
    waiting = [await request_for(f"{letter}@1") for letter in "defg"]
    for number, request in enumerate(held):
        await request.end()
        assert [each.entered for each in waiting] == [place <= number for place in range(4)]


async def test_a_resident_adapter_is_joined_past_those_that_wait(request_for: RequestFor) -> None:
    for letter in "abc":
        await request_for(f"{letter}@1")
    waiting = await request_for("d@1")
    joining = await request_for("b@1")
    assert joining.entered
    assert not waiting.entered


async def test_two_that_wait_for_one_adapter_enter_together(engine: FakeEngine, request_for: RequestFor) -> None:
    held = [await request_for(f"{letter}@1") for letter in "abc"]
    waiting = [await request_for("d@1") for _ in range(2)]
    await held[0].end()
    assert all(request.entered for request in waiting)
    assert engine.loads.count("d@1") == 1


async def test_the_least_recently_used_idle_adapter_goes(
    engine: FakeEngine, request_for: RequestFor, blobs: Blobs
) -> None:
    for letter in "abca":
        await (await request_for(f"{letter}@1")).end()
    await request_for("d@1")
    assert engine.unloads == ["b@1"]
    assert engine.held == {"a@1", "c@1", "d@1"}
    assert blobs.in_use() == {digest_of(letter) for letter in "acd"}


async def test_an_adapter_in_flight_never_goes(engine: FakeEngine, request_for: RequestFor) -> None:
    await request_for("a@1")
    for letter in "bcdef":
        await (await request_for(f"{letter}@1")).end()
    assert "a@1" in engine.held
    assert "a@1" not in engine.unloads


async def test_who_waits_too_long_is_told(build_leases: BuildLeases, engine: FakeEngine) -> None:
    leases = build_leases(patience=0.5)
    async with AsyncExitStack() as held:
        for letter in "abc":
            await held.enter_async_context(leases.hold(f"{letter}@1", digest_of(letter)))
        with pytest.raises(TooManyAdapters, match="3 other adapters"):
            await held.enter_async_context(leases.hold("d@1", digest_of("d")))
        assert leases.in_flight("d@1") == 0
    async with leases.hold("d@1", digest_of("d")):
        assert "d@1" in engine.held


async def test_a_damaged_adapter_is_an_error_of_its_own_requests(
    leases: Leases, engine: FakeEngine, blobs: Blobs, request_for: RequestFor
) -> None:
    held = [await request_for(f"{letter}@1") for letter in "ab"]
    blobs.damaged.add(digest_of("x"))
    for _ in range(CAPACITY + 1):  # each gives its place back
        with pytest.raises(DamagedBlob):
            async with leases.hold("x@1", digest_of("x")):
                pytest.fail("a damaged adapter was let in")
    assert engine.loads == ["a@1", "b@1"]
    assert (await request_for("c@1")).entered
    assert all(request.entered for request in held)


async def test_a_repaired_adapter_is_let_in(leases: Leases, blobs: Blobs) -> None:
    blobs.damaged.add(digest_of("x"))
    with pytest.raises(DamagedBlob):
        async with leases.hold("x@1", digest_of("x")):
            pass
    blobs.damaged.clear()
    async with leases.hold("x@1", digest_of("x")):
        assert leases.resident("x@1")


async def test_what_the_engine_refuses_gives_its_place_back(
    leases: Leases, engine: FakeEngine, blobs: Blobs, request_for: RequestFor
) -> None:
    engine.refused.add("x@1")
    for _ in range(CAPACITY + 1):
        with pytest.raises(ValueError, match="does not fit"):
            async with leases.hold("x@1", digest_of("x")):
                pytest.fail("a refused adapter was let in")
    assert not leases.resident("x@1")
    assert blobs.in_use() == set()
    assert all([(await request_for(f"{letter}@1")).entered for letter in "abc"])


async def test_files_that_vanish_before_the_engine_reads_them_are_no_fault_of_the_adapter(blobs: Blobs) -> None:
    class Late(FakeEngine):
        gone = True

        async def load(self, name: str, folder: Path) -> None:
            if self.gone:
                blobs.damaged.add(digest_of(name))
            raise AdapterNotLoaded("the engine cannot load it", param="model")

    engine = Late(CAPACITY)
    leases = Leases(engine, blobs, CAPACITY, patience=60)
    with pytest.raises(DamagedBlob):
        await leases.fill("x@1", digest_of("x"))
    engine.gone = False
    blobs.damaged.clear()
    with pytest.raises(AdapterNotLoaded):
        await leases.fill("x@1", digest_of("x"))
    assert not blobs.in_use()


async def test_what_was_never_in_memory_has_not_left_it(engine: FakeEngine, blobs: Blobs) -> None:
    registry = CollectorRegistry()
    leases = Leases(engine, blobs, 2, 60.0, Counted(registry))
    engine.refused.add("x@1")
    with pytest.raises(ValueError, match="x@1"):
        async with leases.hold("x@1", digest_of("x")):
            pytest.fail("a refused adapter was let in")
    assert registry.get_sample_value("loraloom_adapter_evictions_total") == 0
    for name in "abc":
        async with leases.hold(f"{name}@1", digest_of(name)):
            pass
    assert registry.get_sample_value("loraloom_adapter_evictions_total") == 1


async def test_every_waiter_for_a_refused_adapter_is_told(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    engine.refused.add("x@1")
    engine.stuck.add("x@1")
    waiting = [await request_for("x@1") for _ in range(3)]
    engine.stuck.clear()
    engine.go.set()
    outcomes = await asyncio.gather(*(request.task for request in waiting), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
    assert leases.in_flight("x@1") == 0


async def test_a_client_that_leaves_while_the_engine_loads(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    """The engine loads to the end all the same, so the place stays taken and the next request finds it there."""
    engine.stuck.add("a@1")
    request = await request_for("a@1")
    await request.leave()
    assert leases.in_flight("a@1") == 0
    engine.stuck.clear()
    engine.go.set()
    await settled()
    assert leases.resident("a@1")
    async with leases.hold("a@1", digest_of("a")):
        assert engine.loads == ["a@1"]


async def test_loading_that_fails_after_every_client_has_left(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    await (await request_for("a@1")).end()
    engine.stuck.add("x@1")
    engine.refused.add("x@1")
    await (await request_for("x@1")).leave()
    engine.stuck.clear()
    engine.go.set()
    await settled()
    engine.refused.clear()
    async with leases.hold("x@1", digest_of("x")):
        assert engine.loads == ["a@1", "x@1", "x@1"]
        assert engine.held == {"a@1", "x@1"}


async def test_a_removed_adapter_goes_at_once_when_idle(leases: Leases, engine: FakeEngine, blobs: Blobs) -> None:
    async with leases.hold("a@1", digest_of("a")):
        pass
    await leases.retire("a@1")
    assert engine.held == set()
    assert blobs.in_use() == set()
    assert not leases.resident("a@1")


async def test_a_removed_adapter_goes_after_its_last_request(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    first, second = await request_for("a@1"), await request_for("a@1")
    await leases.retire("a@1")
    assert leases.resident("a@1")
    await first.end()
    assert engine.held == {"a@1"}
    await second.end()
    assert engine.held == set()


async def test_an_adapter_removed_while_the_engine_loads_it(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    engine.stuck.add("a@1")
    request = await request_for("a@1")
    await leases.retire("a@1")
    engine.stuck.clear()
    engine.go.set()
    await settled()
    assert request.entered
    await request.end()
    assert engine.held == set()


async def test_removing_what_nobody_has_loaded_does_nothing(leases: Leases, engine: FakeEngine) -> None:
    await leases.retire("a@1")
    assert engine.unloads == []


async def test_a_new_place_is_not_compared_with_every_version_that_was_removed(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    record = VersionRecord(number=1, name="a", digest="a" * 64, original="", base=None, base_name=None, rank=1)

    def canonical(version: VersionRecord) -> str:
        looks.append(version.name)
        return f"{version.name}@{version.number}"

    for number in range(1000):
        await leases.retire(f"removed@{number}")
    monkeypatch.setattr(VersionRecord, "canonical", property(canonical))
    mixture = Recipe(EXACT, (Ingredient(0.5, record),))
    with pytest.raises(TypeError):  # the fake blobs know digests only
        await leases.fill("0.5*a@1", mixture)
    assert len(looks) < 10


async def test_an_adapter_wanted_again_while_it_is_taken_out(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    await (await request_for("a@1")).end()
    engine.pace = lambda: 20
    retiring = asyncio.ensure_future(leases.retire("a@1"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert engine.unloads == ["a@1"]
    assert not leases.resident("a@1")
    request = await request_for("a@1")
    await retiring
    assert request.entered
    assert engine.loads == ["a@1", "a@1"]
    assert engine.held == {"a@1"}


async def test_a_failing_unload_is_no_fault_of_who_waits_for_the_place(
    leases: Leases, engine: FakeEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(name: str) -> None:
        engine.held.discard(name)
        raise TimeoutError("no answer from the engine")

    for letter in "abc":
        async with leases.hold(f"{letter}@1", digest_of(letter)):
            pass
    monkeypatch.setattr(engine, "unload", fail)
    async with leases.hold("d@1", digest_of("d")):
        assert leases.resident("d@1")
    assert "a@1 could not be taken out" in caplog.text


async def test_residents_are_told_most_recently_used_first(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    for letter in "abca":
        await (await request_for(f"{letter}@1")).end()
    assert leases.residents == ["a@1", "c@1", "b@1"]
    await leases.retire("c@1")
    engine.stuck.add("d@1")
    await request_for("d@1")
    assert leases.residents == ["a@1", "b@1"]
    engine.stuck.clear()
    engine.go.set()


async def test_the_places_of_one_version_by_itself(leases: Leases, request_for: RequestFor) -> None:
    """Each strength of proxy-tuning has a place of its own; a mixture is another adapter."""
    for name in ("a@1~0.5", "a@1", "0.5*a@1+1*b@1~2"):
        await (await request_for(name)).end()
    assert leases.held_alone("a@1") == ["a@1~0.5", "a@1"]
    assert leases.held_alone("a@2") == leases.held_alone("b@1") == leases.held_alone("a") == []


async def test_a_pinned_adapter_stays(leases: Leases, engine: FakeEngine, request_for: RequestFor) -> None:
    await (await request_for("a@1")).end()
    leases.pin({"a@1"})
    for letter in "bcdef":
        await (await request_for(f"{letter}@1")).end()
    assert leases.resident("a@1")
    assert leases.pinned("a@1")
    assert not leases.pinned("b@1")
    leases.pin(set())
    for letter in "bcd":
        await (await request_for(f"{letter}@1")).end()
    assert not leases.resident("a@1")


async def test_a_pin_that_ends_lets_in_who_waits(leases: Leases, request_for: RequestFor) -> None:
    await (await request_for("a@1")).end()
    leases.pin({"a@1"})
    for letter in "bc":
        await request_for(f"{letter}@1")
    waiting = await request_for("d@1")
    assert not waiting.entered
    leases.pin(set())
    await settled()
    assert waiting.entered


async def test_a_place_stays_for_what_is_not_pinned(leases: Leases) -> None:
    assert leases.most_pinned == CAPACITY - 1
    with pytest.raises(AssertionError):
        leases.pin({"a@1", "b@1", "c@1"})


async def test_a_pinned_adapter_that_is_removed_goes(leases: Leases, engine: FakeEngine) -> None:
    async with leases.hold("a@1", digest_of("a")):
        leases.pin({"a@1"})
    await leases.retire("a@1")
    assert engine.held == set()


async def test_a_failed_place_goes_also_when_it_is_pinned(leases: Leases, engine: FakeEngine, blobs: Blobs) -> None:
    async with leases.hold("a@1", digest_of("a")):
        leases.pin({"a@1"})
    await leases.retire("a@1")
    blobs.damaged.add(digest_of("a"))
    for _ in range(2):
        with pytest.raises(DamagedBlob):
            async with leases.hold("a@1", digest_of("a")):
                pass


async def test_filling_takes_free_places_only(leases: Leases, engine: FakeEngine, request_for: RequestFor) -> None:
    await (await request_for("a@1")).end()
    for letter in "abcd":
        await leases.fill(f"{letter}@1", digest_of(letter))
    assert engine.loads == ["a@1", "b@1", "c@1"]
    assert leases.residents == ["a@1", "b@1", "c@1"]


async def test_what_was_filled_in_goes_first(leases: Leases, engine: FakeEngine, request_for: RequestFor) -> None:
    await (await request_for("a@1")).end()
    for letter in "bc":
        await leases.fill(f"{letter}@1", digest_of(letter))
    await request_for("d@1")
    assert engine.unloads == ["c@1"]


async def test_a_request_joins_what_is_being_filled_in(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    engine.stuck.add("a@1")
    filling = asyncio.ensure_future(leases.fill("a@1", digest_of("a")))
    joined, other = await request_for("a@1"), await request_for("b@1")
    assert other.entered
    assert not joined.entered
    engine.stuck.clear()
    engine.go.set()
    await filling
    await settled()
    assert joined.entered
    assert engine.loads == ["a@1", "b@1"]


async def test_nothing_is_filled_in_while_somebody_waits(
    leases: Leases, engine: FakeEngine, request_for: RequestFor
) -> None:
    held = [await request_for(f"{letter}@1") for letter in "abc"]
    waiting = await request_for("d@1")
    await leases.fill("e@1", digest_of("e"))
    assert "e@1" not in engine.loads
    await held[0].end()
    assert waiting.entered


async def test_what_cannot_be_filled_in_gives_its_place_back(
    leases: Leases, engine: FakeEngine, blobs: Blobs, request_for: RequestFor
) -> None:
    engine.refused.add("x@1")
    blobs.damaged.add(digest_of("y"))
    for name, error in (("x@1", ValueError), ("y@1", DamagedBlob)):
        with pytest.raises(error):
            await leases.fill(name, digest_of(name))
    assert blobs.in_use() == set()
    assert all([(await request_for(f"{letter}@1")).entered for letter in "abc"])
