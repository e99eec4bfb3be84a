"""A few at a time, beside all else."""

import asyncio
import threading

import pytest

from loraloom.server.errors import OfflineBusy
from loraloom.server.gate.work import Work
from tests.server.gate.application import settled, until


async def test_what_it_does_is_returned_or_raised() -> None:
    work = Work()
    assert await work.do(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await work.do(divmod, 7, 0)


async def test_too_much_is_refused_at_once_and_whoever_leaves_stays_until_it_is_done() -> None:
    work, go, done = Work(threads=1, waiting=1), threading.Event(), []

    def slow(name: str) -> None:
        go.wait(60)
        done.append(name)

    first, second = asyncio.ensure_future(work.do(slow, "a")), asyncio.ensure_future(work.do(slow, name="b"))
    await settled()
    with pytest.raises(OfflineBusy):
        await work.do(slow, "c")
    second.cancel()
    await settled()
    with pytest.raises(OfflineBusy):
        await work.do(slow, "c")
    assert not second.done()
    go.set()
    await first
    await until(lambda: done == ["a", "b"])
    await work.do(slow, "d")
    assert done == ["a", "b", "d"]
