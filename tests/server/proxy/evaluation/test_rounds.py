"""Rounds of questions."""

import pytest

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.rounds import ask_rounds, bounds, turned
from tests.server.proxy.evaluation.described import plan_of
from tests.server.proxy.evaluation.recorded import Recorded


@pytest.mark.parametrize(
    ("count", "concurrency", "found"),
    [
        (100, 8, [(0, 33), (33, 66), (66, 100)]),
        (6, 8, [(0, 6)]),
        (1, 1, [(0, 1)]),
        (16, 1, [(0, 4), (4, 8), (8, 12), (12, 16)]),
    ],
)
def test_bounds(count: int, concurrency: int, found: list[tuple[int, int]]) -> None:
    assert list(bounds(count, concurrency)) == found


def test_each_arm_begins_in_its_turn() -> None:
    arms = arms_of(plan_of().spec)[:3]
    assert [[arm.key for arm in turned(arms, number)] for number in range(4)] == [
        ["large", "large-shots", "small"],
        ["large-shots", "small", "large"],
        ["small", "large", "large-shots"],
        ["large", "large-shots", "small"],
    ]
    assert turned([], 2) == []


async def test_every_question_is_asked_of_every_arm_once() -> None:
    plan, asker, told = plan_of(questions=20, concurrency=2), Recorded(2), list[str]()
    arms = arms_of(plan.spec)[:2]
    rounds = await ask_rounds(asker, arms, plan.tasks, 9, told.append)
    assert [(each.task, each.arm, each.first) for each in rounds] == [
        (task, arm, first)
        for task in ("date", "sql")
        for first, order in ((0, ("large", "large-shots")), (10, ("large-shots", "large")))
        for arm in order
    ]
    asked = {(r.task, r.arm, answer.text) for r in rounds for answer in r.asked.answers}
    assert len(asked) == 2 * 2 * 20
    assert {request["max_tokens"] for call in asker.calls[1:] for request in call} == {9}
    assert told == [f"{task}: {done} of 20 questions" for task in ("date", "sql") for done in (10, 20)]


async def test_everything_is_loaded_before_the_time_is_taken() -> None:
    plan, asker = plan_of(), Recorded(8)
    arms = [arm for arm in arms_of(plan.spec) if arm.server == "proxy"]
    await ask_rounds(asker, arms, plan.tasks, 9, print)
    warm = {request["model"] for request in asker.calls[0]}
    assert warm == {f"tuned/{task}~{alpha}" for task in ("date", "sql") for alpha in ("0.5", "1", "1.5")}
    assert {request["max_tokens"] for request in asker.calls[0]} == {1}


async def test_an_arm_is_not_asked_what_it_cannot_take() -> None:
    plan, asker = plan_of(large_adapter=None), Recorded(8)
    tuned = [arm for arm in arms_of(plan_of().spec) if arm.key == "large-tuned"]
    assert await ask_rounds(asker, tuned, plan.tasks, 9, print) == []
