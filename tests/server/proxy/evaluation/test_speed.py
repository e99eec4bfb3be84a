"""Speed at a fixed length."""

from loraloom.server.proxy.evaluation.arms import arms_of
from loraloom.server.proxy.evaluation.speed import FILLS, LENGTH, time_writing
from tests.server.proxy.evaluation.described import plan_of
from tests.server.proxy.evaluation.recorded import Recorded


async def test_every_arm_writes_as_much_about_all_tasks() -> None:
    plan, asker = plan_of(questions=3), Recorded(4)
    arms = arms_of(plan.spec)[2:5]
    speeds = await time_writing(asker, arms, plan.tasks, rounds=3)
    assert speeds == {arm.key: (FILLS * 4 * LENGTH,) * 3 for arm in arms}
    for call in asker.calls:
        assert len(call) == FILLS * 4
        assert {(request["max_tokens"], request["ignore_eos"]) for request in call} == {(LENGTH, True)}
        assert len({request["messages"][-1]["content"] for request in call}) == 6
    firsts = [call[0]["model"] for call in asker.calls]
    assert firsts[::3] == [arm.model(plan.tasks[0]) for arm in arms]


async def test_an_arm_writes_about_the_tasks_that_it_takes() -> None:
    plan, asker = plan_of(), Recorded(1)
    tasks = [plan.tasks[0], plan_of(large_adapter=None).tasks[1]]
    tuned = [arm for arm in arms_of(plan.spec) if arm.key == "large-tuned"]
    await time_writing(asker, tuned, tasks, rounds=1)
    assert {request["model"] for request in asker.calls[0]} == {"tuned/date"}


async def test_none_when_there_are_no_rounds() -> None:
    plan = plan_of()
    assert await time_writing(Recorded(1), arms_of(plan.spec), plan.tasks, rounds=0) == {}
