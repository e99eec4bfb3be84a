"""Answers that count for a moment, and no longer than this process leaves the store alone."""

import pytest

from loraloom.server.gate import recent
from loraloom.server.gate.recent import LIFETIME, Recent


class World:
    """What is looked at; each look finds how many there were before."""

    def __init__(self) -> None:
        self.now, self.changes, self.looks = 100.0, 0, 0
        self.recent = Recent(lambda: self.changes, lambda: self.now)

    async def look(self) -> int:
        self.looks += 1
        return self.looks

    async def find(self, what: str = "sql") -> int:
        return await self.recent.find(what, self.look)


@pytest.fixture
def world() -> World:
    return World()


async def test_what_was_found_counts_for_a_moment(world: World) -> None:
    assert await world.find() == 1
    world.now += 0.9 * LIFETIME
    assert await world.find() == 1
    world.now += 0.2 * LIFETIME
    assert await world.find() == 2


async def test_each_question_has_its_own_answer(world: World) -> None:
    assert [await world.find(what) for what in ("sql", "date", "sql", "date")] == [1, 2, 1, 2]


async def test_a_change_by_this_process_counts_at_once(world: World) -> None:
    assert await world.find() == 1
    world.changes = 7
    assert await world.find() == 2


async def test_an_answer_is_as_old_as_the_beginning_of_its_look(world: World) -> None:
    async def slow() -> int:
        world.now += LIFETIME
        return await world.look()

    assert await world.recent.find("sql", slow) == 1
    assert await world.find() == 2


async def test_what_changes_during_a_look_ends_its_answer(world: World) -> None:
    async def overtaken() -> int:
        world.changes += 1
        return await world.look()

    assert await world.recent.find("sql", overtaken) == 1
    assert await world.find() == 2


async def test_failures_are_not_kept(world: World) -> None:
    async def fails() -> int:
        raise KeyError("sql")

    with pytest.raises(KeyError):
        await world.recent.find("sql", fails)
    assert await world.find() == 1


async def test_it_does_not_grow_without_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST", 3)
    for number in range(10):
        await world.find(str(number))
        assert len(world.recent._found) <= 3
