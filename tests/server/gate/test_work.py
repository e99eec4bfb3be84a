"""A few at a time, beside all else."""

import asyncio
import threading

import pytest

from loraloom.server.access.access import ANONYMOUS
from loraloom.server.errors import OfflineBusy
from loraloom.server.gate.work import Work
from tests.server.gate.application import settled, until


async def test_what_it_does_is_returned_or_raised() -> None:
    work = Work()
    assert await work.do(ANONYMOUS, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await work.do(ANONYMOUS, divmod, 7, 0)


async def test_too_much_is_refused_at_once_and_whoever_leaves_stays_until_it_is_done() -> None:
    work, go, done = Work(threads=1, waiting=1), threading.Event(), []

    def slow(name: str) -> None:
        go.wait(60)
        done.append(name)

    first, second = (
        asyncio.ensure_future(work.do(ANONYMOUS, slow, "a")),
        asyncio.ensure_future(work.do(ANONYMOUS, slow, name="b")),
    )
    await settled()
    with pytest.raises(OfflineBusy):
        await work.do(ANONYMOUS, slow, "c")
    second.cancel()
    await settled()
    with pytest.raises(OfflineBusy):
        await work.do(ANONYMOUS, slow, "c")
    assert not second.done()
    go.set()
    await first
    await until(lambda: done == ["a", "b"])
    await work.do(ANONYMOUS, slow, "d")
    assert done == ["a", "b", "d"]


async def test_one_key_leaves_places_for_others() -> None:
    work, go, done = Work(threads=1, waiting=7), threading.Event(), []

    def slow(name: str) -> None:
        go.wait(60)
        done.append(name)

    tasks = [asyncio.ensure_future(work.do(key, slow, key)) for key in ("a", "a", "b", "b")]
    await settled()
    with pytest.raises(OfflineBusy, match="of the key 'a'"):
        await work.do("a", slow, "a")
    tasks += [asyncio.ensure_future(work.do(ANONYMOUS, slow, "everybody")) for _ in range(4)]
    await settled()
    with pytest.raises(OfflineBusy, match="other adapters"):
        await work.do("c", slow, "c")
    go.set()
    await asyncio.gather(*tasks)
    await work.do("a", slow, "a again")
    assert done == ["a", "a", "b", "b", *["everybody"] * 4, "a again"]
