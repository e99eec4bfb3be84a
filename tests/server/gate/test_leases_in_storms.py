"""Leases under random schedules: requests come, fail and are cancelled anywhere."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob, StoreError
from loraloom.server.errors import TooManyAdapters
from loraloom.server.gate.leases import Leases
from tests.server.fakes import FakeEngine
from tests.server.gate.conftest import BuildLeases
from tests.server.gate.leasing import Blobs, digest_of, settled

pytestmark = pytest.mark.usefixtures("complaints")

NAMES = [f"{letter}@1" for letter in "abcdefgx"]


class Storm:
    """Many requests for few places, each of which may fail or be cancelled anywhere, and removals in between."""

    def __init__(self, leases: Leases, engine: FakeEngine, seed: int) -> None:
        self.random = random.Random(seed)
        self.served = 0
        self._leases = leases
        self._engine = engine
        engine.pace = lambda: self.random.randrange(6)

    async def blow(self) -> None:
        tasks = [asyncio.ensure_future(self._request()) for _ in range(60)]
        cancelling = asyncio.ensure_future(self._cancel_some(tasks))
        others = [asyncio.ensure_future(each) for each in (self._retire_some(), self._fill_some(), self._pin_some())]
        await asyncio.wait([*tasks, cancelling, *others])
        self._leases.pin(())
        await settled()
        errors = [task.exception() for task in tasks if not task.cancelled()]
        assert {type(error) for error in errors} <= {type(None), KeyError, DamagedBlob, ValueError}

    async def _request(self) -> None:
        await self._steps(60)
        name = self.random.choice(NAMES)
        async with self._leases.hold(name, digest_of(name)) as folder:
            assert folder == Path("/blobs") / digest_of(name)
            with self._engine.using(name):
                await self._steps(8)
                if self.random.random() < 0.1:
                    raise KeyError("the request failed")
                self.served += 1

    async def _cancel_some(self, tasks: list[asyncio.Task[None]]) -> None:
        for _ in range(40):
            await self._steps(3)
            self.random.choice(tasks).cancel()

    async def _retire_some(self) -> None:
        for _ in range(10):
            await self._steps(10)
            await self._leases.retire(self.random.choice(NAMES))

    async def _fill_some(self) -> None:
        for _ in range(10):
            await self._steps(10)
            name = self.random.choice(NAMES)
            with suppress(DamagedBlob, ValueError):
                await self._leases.fill(name, digest_of(name))

    async def _pin_some(self) -> None:
        for _ in range(10):
            await self._steps(10)
            self._leases.pin(self.random.sample(NAMES, self.random.randrange(self._leases.most_pinned + 1)))

    async def _steps(self, most: int) -> None:
        for _ in range(self.random.randrange(most)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(100))
async def test_no_schedule_leads_the_engine_astray(leases: Leases, engine: FakeEngine, blobs: Blobs, seed: int) -> None:
    """Requests come, fail and are cancelled anywhere: the engine is fed right, and in the end nothing is leaked."""
    blobs.damaged.add(digest_of("g"))
    engine.refused.add("x@1")
    storm = Storm(leases, engine, seed)
    async with asyncio.timeout(60):
        await storm.blow()
    assert storm.served > 0
    assert {name for name in NAMES if leases.in_flight(name)} == set()
    assert {name for name in NAMES if leases.resident(name)} == engine.held
    held = {digest_of(name) for name in engine.held}
    # What the engine refused after its clients had left goes when a place is needed.
    assert held <= blobs.in_use() <= held | {digest_of("x@1")}
    for name in NAMES:
        await leases.retire(name)
    assert engine.held == set()
    assert blobs.in_use() == set()


@pytest.mark.parametrize("seed", range(20))
async def test_patience_ends_under_a_storm_too(
    build_leases: BuildLeases, engine: FakeEngine, blobs: Blobs, seed: int
) -> None:
    """Requests whose patience ends at any moment leave nothing behind."""
    leases = build_leases(patience=1e-4)
    chance = random.Random(seed)
    engine.pace = lambda: chance.randrange(6)

    async def one() -> None:
        name = chance.choice(NAMES)
        async with leases.hold(name, digest_of(name)):
            with engine.using(name):
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)

    outcomes = await asyncio.gather(*(one() for _ in range(60)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), TooManyAdapters, StoreError}
    await settled()
    for name in NAMES:
        assert leases.in_flight(name) == 0
        await leases.retire(name)
    assert engine.held == set()
    assert blobs.in_use() == set()
