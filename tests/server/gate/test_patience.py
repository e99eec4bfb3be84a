"""Waiting with an end: begun without a timer, and ended by one."""

import asyncio
import gc
import weakref

import pytest

from loraloom.server.gate.patience import within


async def test_what_has_not_to_be_waited_for_takes_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once() -> int:
        return 7

    monkeypatch.setattr(asyncio, "timeout", None)
    assert await within(1.0, at_once()) == 7


async def test_what_fails_at_once() -> None:
    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await within(1.0, fails())


async def test_what_comes_in_time_after_several_waits() -> None:
    async def slow() -> str:
        await asyncio.sleep(0)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, future.set_result, "there")
        found = await future
        await asyncio.sleep(0)
        return found

    assert await within(60.0, slow()) == "there"


async def test_a_future_as_well() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 7)
    assert await within(60.0, future) == 7


async def test_what_fails_while_it_is_waited_for() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await within(60.0, fails())


async def test_what_takes_longer_is_cancelled_and_may_clean_up() -> None:
    steps: list[str] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("cancelled")
            await asyncio.sleep(0)
            steps.append("cleaned up")
            raise

    with pytest.raises(TimeoutError):
        await within(0.001, hangs())
    assert steps == ["cancelled", "cleaned up"]


async def test_who_waits_can_be_cancelled() -> None:
    ended = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(within(60.0, hangs()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_cancelled_one_leaves_nothing_for_the_collector() -> None:
    class Held:
        pass

    async def hangs(held: Held) -> None:
        await asyncio.Event().wait()

    held = Held()
    gone = weakref.ref(held)
    task = asyncio.ensure_future(within(60.0, hangs(held)))
    del held
    await asyncio.sleep(0)
    gc.disable()
    try:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()


async def test_a_waiting_one_that_is_thrown_away_is_closed() -> None:
    closed: list[bool] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    waiting = within(60.0, hangs())
    waiting.send(None)
    waiting.close()
    assert closed == [True]
