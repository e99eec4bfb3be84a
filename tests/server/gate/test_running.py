"""The requests that run, and how all of them are ended."""

import asyncio

import pytest

from loraloom.server.gate.running import Running


async def test_requests_are_interrupted_and_no_others() -> None:
    running = Running()
    forever = asyncio.Event()

    async def request() -> None:
        with running.listed():
            await forever.wait()

    requests = [asyncio.ensure_future(request()) for _ in range(3)]
    other = asyncio.ensure_future(forever.wait())
    await asyncio.sleep(0)
    assert running.interrupt() == 3
    await asyncio.wait(requests)
    assert all(task.cancelled() for task in requests)
    assert not other.done()
    assert running.interrupt() == 0
    other.cancel()


async def test_a_request_that_has_failed_is_not_listed_any_more() -> None:
    running = Running()
    with pytest.raises(KeyError), running.listed():
        raise KeyError
    assert running.interrupt() == 0


async def test_it_tells_how_many_there_are() -> None:
    running = Running()
    with running.listed():
        assert running.count == 1
    assert running.count == 0
