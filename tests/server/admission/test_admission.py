"""Waiting at the edge."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from loraloom.server.admission.admission import Admission
from loraloom.server.admission.asked import Asked
from loraloom.server.admission.estimate import Estimate
from loraloom.server.admission.queue import STOPPING
from loraloom.server.admission.rules import Rules
from loraloom.server.admission.ticket import Ticket
from loraloom.server.errors import Draining, QueueFull
from tests.server.admission.simulated import FakeClock, adapters, waited


@asynccontextmanager
async def admitted(admission: Admission, asked: Asked) -> AsyncIterator[Ticket]:
    """A request that runs for the length of a block."""
    ticket = await admission.enter(asked)
    try:
        yield ticket
    finally:
        admission.leave(ticket)


class Request:
    """One request in a task of its own, which runs until it is told to end."""

    def __init__(self, admission: Admission, asked: Asked) -> None:
        self.entered = False
        self.waited = 0.0
        self._end = asyncio.Event()
        self._admission = admission
        self.task = asyncio.ensure_future(self._run(asked))

    async def _run(self, asked: Asked) -> None:
        async with admitted(self._admission, asked) as ticket:
            self.entered, self.waited = True, waited(ticket)
            await self._end.wait()

    async def end(self) -> None:
        self._end.set()
        await asyncio.wait([self.task])
        await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def request(admission: Admission, key: str = "k", adapter: str | None = None) -> Request:
    request = Request(admission, Asked(key, adapter))
    await settled()
    return request


async def test_a_request_waits_for_its_turn_and_knows_how_long() -> None:
    clock = FakeClock()
    admission = Admission(Rules(1, 1), clock)
    first, second = await request(admission), await request(admission, adapter="x@1")
    assert (first.entered, second.entered) == (True, False)
    assert (admission.running(), admission.waiting(), adapters(admission._queue)) == ({"k": 1}, {"k": 1}, [])
    clock.now += 7
    await first.end()
    assert (second.entered, second.waited) == (True, 7)
    assert adapters(admission._queue) == ["x@1"]
    await second.end()
    assert (admission.running(), admission.waiting(), adapters(admission._queue)) == ({}, {}, [])


async def test_a_caller_that_leaves_the_queue_leaves_no_trace() -> None:
    admission = Admission(Rules(1, 1))
    first, second, third = [await request(admission) for _ in range(3)]
    second.task.cancel()
    await settled()
    assert admission.waiting() == {"k": 1}
    await first.end()
    assert third.entered
    await third.end()
    assert second.task.cancelled()
    assert (admission.running(), admission.waiting()) == ({}, {})


async def test_a_caller_that_leaves_as_its_turn_comes_gives_it_to_the_next() -> None:
    admission = Admission(Rules(1, 1))
    async with AsyncExitStack() as held:
        await held.enter_async_context(admitted(admission, Asked("k")))
        second, third = await request(admission), await request(admission)
        await held.aclose()
        second.task.cancel()
    await settled()
    assert not second.entered
    assert third.entered
    await third.end()
    assert admission.running() == {}


async def test_a_request_that_fails_gives_everything_back() -> None:
    admission = Admission(Rules(1, 1))
    with pytest.raises(KeyError):
        async with admitted(admission, Asked("k", "x@1")):
            raise KeyError
    assert (admission.running(), adapters(admission._queue)) == ({}, [])


async def test_patience_ends() -> None:
    admission = Admission(Rules(1, 1, patience=0.001))
    async with admitted(admission, Asked("k")):
        with pytest.raises(QueueFull, match=r"0\.001 s"):
            async with admitted(admission, Asked("k")):
                pass
        assert admission.waiting() == {}


async def test_where_nobody_may_wait_a_request_comes_in_at_once_or_not_at_all() -> None:
    admission = Admission(Rules(1, 1, most_waiting=0))
    async with admitted(admission, Asked("k")):
        with pytest.raises(QueueFull):
            async with admitted(admission, Asked("k")):
                pass
        assert admission.waiting() == {}
    async with admitted(admission, Asked("k")):
        pass


async def test_a_server_that_stops_lets_nobody_in_any_more() -> None:
    admission = Admission(Rules(1, 1))
    running, waiting = await request(admission), await request(admission)
    admission.close()
    await settled()
    with pytest.raises(Draining, match=f"^{STOPPING}$"):
        waiting.task.result()
    with pytest.raises(Draining, match=f"^{STOPPING}$"):
        async with admitted(admission, Asked("k")):
            pass
    await running.end()
    assert running.task.exception() is None
    assert (admission.running(), admission.waiting()) == ({}, {})


async def test_what_waits_behind_all_others_is_not_counted_among_them() -> None:
    admission = Admission(Rules(1, 1))
    async with admitted(admission, Asked("k")):
        job = asyncio.ensure_future(admission.enter(Asked("k", background=True)))
        await settled()
        assert (admission.waiting(), admission.waiting_behind()) == ({}, {"k": 1})
    admission.leave(await job)
    assert admission.waiting_behind() == {}


@pytest.mark.parametrize("seed", range(10))
async def test_no_storm_leaks_a_seat(seed: int) -> None:
    """Requests come, fail, lose patience and are cancelled anywhere."""
    chance = random.Random(seed)
    rules = Rules(4, 2, 1, patience=10 if seed % 2 else 1e-3, hold=0)
    admission, most = Admission(rules), 0

    async def one() -> None:
        nonlocal most
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
        asked = Asked(chance.choice("abc"), chance.choice((None, "x", "y", "z")), Estimate(chance.randrange(6), 5, 5))
        async with admitted(admission, asked) as ticket:
            most = max(most, sum(admission.running().values()))
            assert len(adapters(admission._queue)) <= 2
            for _ in range(chance.randrange(6)):
                ticket.spend(1, 1)
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                raise KeyError

    tasks = [asyncio.ensure_future(one()) for _ in range(80)]
    for _ in range(20):
        await asyncio.sleep(0)
        chance.choice(tasks).cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), KeyError, QueueFull, asyncio.CancelledError}
    assert 0 < most <= 4
    assert (admission.running(), admission.waiting(), adapters(admission._queue)) == ({}, {}, [])
    async with admitted(admission, Asked("a", None, Estimate(100, 1, 1))):
        assert admission.running() == {"a": 1}
