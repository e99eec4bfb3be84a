"""The end of a server with its engine."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from loraloom.server import ending
from loraloom.server.ending import end_with
from loraloom.server.gate.running import Running


class Engine:
    dead = False


class House:
    """A server whose end is written down instead of being one."""

    def __init__(self) -> None:
        self.engine, self.running = Engine(), Running()
        self.told: list[object] = []
        self.hangs = False
        self.back = threading.Event()

    def stop_accepting(self) -> None:
        self.told.append("accepts no more")

    def close(self) -> None:
        if self.hangs:
            self.back.wait()
        else:  # it takes its time, in which the loop goes on
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), self._loop).result()
            self.told.append("written down")

    async def end(self) -> None:
        self._loop = asyncio.get_running_loop()
        await end_with(self.engine, self.running, self.stop_accepting, self.close, self.told.append)


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    for name, seconds in (("WATCH", 0.05), ("FLUSH", 0.01), ("LAST_WORDS", 60.0), ("WRITING", 60.0)):
        monkeypatch.setattr(ending, name, seconds)
    house = House()
    yield house
    house.back.set()


async def test_it_lives_as_long_as_its_engine(house: House) -> None:
    task = asyncio.ensure_future(house.end())
    await asyncio.sleep(4 * ending.WATCH)
    assert not task.done()
    assert house.told == []
    house.engine.dead = True
    await task
    assert house.told == ["accepts no more", "written down", 1]


async def test_what_runs_is_interrupted_and_answered_first(house: House) -> None:
    async def request() -> None:
        with house.running.listed():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)  # longer than FLUSH, which is waited in any case
                house.told.append("503")

    asking = asyncio.ensure_future(request())
    await asyncio.sleep(0)
    house.engine.dead = True
    await house.end()
    assert house.told == ["accepts no more", "503", "written down", 1]
    await asking


async def test_a_request_that_does_not_end_holds_up_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "LAST_WORDS", 0.05)
    house.engine.dead = True
    with house.running.listed():
        task = asyncio.ensure_future(house.end())
        with pytest.raises(asyncio.CancelledError):  # of this very request
            await asyncio.Event().wait()
        await task
    assert house.told == ["accepts no more", "written down", 1]


async def test_nor_does_a_disk_that_hangs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "WRITING", 0.05)
    house.engine.dead = True
    house.hangs = True
    await house.end()
    assert house.told == ["accepts no more", 1]
