"""Looks that hang: given up after a while, refused at once when all threads hang, and taken again afterwards."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from loraloom.adapters.errors import AdapterNotFound, StoreError
from loraloom.server.gate.looks import Looks, _Look, _work


class Filesystem:
    """Hangs until it is back."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self.looks = 0

    def look(self) -> str:
        self.looks += 1
        self.back.wait()
        return "there"


@pytest.fixture
def filesystem() -> Iterator[Filesystem]:
    filesystem = Filesystem()
    yield filesystem
    filesystem.back.set()


def refused() -> None:
    raise AdapterNotFound("sql")


def test_a_look_gives_what_it_finds() -> None:
    looks = Looks("the store x")
    assert asyncio.run(looks.take(divmod, 7, 2)) == (3, 1)
    with pytest.raises(AdapterNotFound):
        asyncio.run(looks.take(refused))


def test_a_look_that_hangs_is_given_up_and_holds_up_nobody_else(filesystem: Filesystem) -> None:
    looks = Looks("the store x", patience=0.2, threads=2)

    async def scenario() -> None:
        while not filesystem.looks:  # it may be given up before a thread has begun it
            with pytest.raises(StoreError, match="the store x did not answer within 0.2 s"):
                await looks.take(filesystem.look)
        assert await answered(looks) == 1

    asyncio.run(asyncio.wait_for(scenario(), 60))


async def answered(looks: Looks) -> int:
    """What a look finds, as soon as a thread takes it in time; on a busy machine the first may be too late."""
    while True:
        with suppress(StoreError):
            return await looks.take(abs, -1)
        await asyncio.sleep(0)


def test_when_all_threads_hang_looks_are_refused_at_once_until_they_return(filesystem: Filesystem) -> None:
    looks = Looks("the store x", patience=0.2, threads=2)

    async def scenario() -> None:
        while filesystem.looks < 2:
            with pytest.raises(StoreError):
                await looks.take(filesystem.look)
        for _ in range(3):
            with pytest.raises(StoreError):
                await looks.take(filesystem.look)
        assert filesystem.looks == 2
        refusal = asyncio.ensure_future(looks.take(filesystem.look))
        await asyncio.sleep(0)
        assert isinstance(refusal.exception(), StoreError)
        filesystem.back.set()
        while True:
            try:
                assert await looks.take(filesystem.look) == "there"
                return
            except StoreError:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_client_that_leaves_takes_its_look_out_of_the_queue(filesystem: Filesystem) -> None:
    looks = Looks("the store x", patience=60.0, threads=1)

    async def scenario() -> None:
        first, second = (asyncio.ensure_future(looks.take(filesystem.look)) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        filesystem.back.set()
        assert await first == "there"
        assert await looks.take(abs, -1) == 1
        assert filesystem.looks == 1

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_look_that_hangs_counts_also_when_its_client_has_left(filesystem: Filesystem) -> None:
    looks = Looks("the store x", patience=0.2, threads=1)

    async def scenario() -> None:
        left = asyncio.ensure_future(looks.take(filesystem.look))
        while not filesystem.looks:
            if left.done():  # it was given up before a thread had begun it
                left = asyncio.ensure_future(looks.take(filesystem.look))
            await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(StoreError):
            await looks.take(filesystem.look)
        assert await refused_at_once(looks.take(abs, -1))
        filesystem.back.set()
        while await refused_at_once(looks.take(abs, -1)):
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scenario(), 60))


async def refused_at_once(taking: Coroutine[Any, Any, int]) -> bool:
    """Whether a look is refused before anybody could have taken it."""
    look = asyncio.ensure_future(taking)
    await asyncio.sleep(0)
    return look.done() and isinstance(look.exception(), StoreError)


def test_each_of_many_looks_has_its_own_answer() -> None:
    looks = Looks("the store x", threads=3)

    async def scenario() -> list[int]:
        return await asyncio.gather(*(looks.take(pow, number, 2) for number in range(200)))

    before = threading.active_count()
    assert asyncio.run(scenario()) == [number**2 for number in range(200)]
    assert threading.active_count() <= before + 3


def test_threads_end_with_what_they_work_for() -> None:
    looks = Looks("the store x", threads=2)
    worker = asyncio.run(looks.take(threading.current_thread))
    assert worker.daemon  # one that hangs must not keep the process
    del looks
    worker.join()


class GivenUp:
    """The answer of a look that is given up just when its thread has found that somebody waits."""

    def __init__(self) -> None:
        self.give_up: Callable[[], None] | None = None
        self.over = False

    def done(self) -> bool:
        found, give_up, self.give_up = self.over, self.give_up, None
        if give_up:
            give_up()
        return found

    def set_exception(self, _: Exception) -> None:
        self.over = True

    def get_loop(self) -> asyncio.AbstractEventLoop:
        raise RuntimeError("there is none")


def test_a_look_that_is_given_up_as_its_thread_begins_counts_as_hanging() -> None:
    looks, answer, counted = Looks("the store x"), GivenUp(), list[bool]()
    one = _Look(lambda: counted.append(one in looks._hanging), answer, 0.0)  # type: ignore[arg-type]
    looks._open[one] = None
    answer.give_up = lambda: looks._give_up(one)
    looks._jobs.put(one)
    looks._jobs.put(None)
    _work(looks._jobs, looks._hanging)
    assert (counted, looks._hanging) == ([True], set())
