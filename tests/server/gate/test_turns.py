"""So many at a time of one key."""

import asyncio

import pytest

from loraloom.server.errors import MixturesBusy
from loraloom.server.gate.turns import Turns
from tests.server.gate.application import settled


async def test_one_key_has_a_few_at_a_time_and_others_do_not_wait_for_it() -> None:
    turns, inside, go = Turns(2, 60), [], asyncio.Event()

    async def one(key: str) -> None:
        async with turns.taken(key):
            inside.append(key)
            await go.wait()

    tasks = [asyncio.ensure_future(one(key)) for key in "aaaaab"]
    await settled()
    assert inside == ["a", "a", "b"]
    go.set()
    await asyncio.gather(*tasks)
    assert sorted(inside) == [*"aaaaab"]
    assert turns._lines == {}


async def test_patience_ends_and_leaves_nothing_behind() -> None:
    turns = Turns(1, 0.001)
    async with turns.taken("a"):
        with pytest.raises(MixturesBusy, match="2 mixtures"):
            async with turns.taken("a"):
                pass
        async with turns.taken("b"):
            pass
    assert turns._lines == {}


async def test_who_fails_or_is_cancelled_gives_its_turn_back() -> None:
    turns = Turns(1, 60)
    with pytest.raises(KeyError):
        async with turns.taken("a"):
            raise KeyError

    async def one() -> None:
        async with turns.taken("a"):
            await asyncio.Event().wait()

    first, second = asyncio.ensure_future(one()), asyncio.ensure_future(one())
    await settled()
    for task in (second, first):
        task.cancel()
    await settled()
    async with turns.taken("a"):
        pass
    assert turns._lines == {}
