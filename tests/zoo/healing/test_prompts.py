"""The large model is asked different questions, the same ones each time, and nothing that adapters are measured on."""

from ..recipe import RECIPES
from ..tasks import TASKS
from .prompts import SHOTS, open_prompts, task_prompts


def test_open_prompts_differ_and_repeat_with_their_seed() -> None:
    prompts = open_prompts(300, seed=0)
    assert len({conversation[0] for conversation in prompts}) == 300
    assert prompts == open_prompts(300, seed=0)
    assert prompts != open_prompts(300, seed=1)
    assert open_prompts(20, seed=0) == prompts[:20]
    assert not any("{" in text for ((_, text),) in prompts)


def test_task_prompts_are_half_alone_and_half_after_solved_ones() -> None:
    turns = [len(conversation) for conversation in task_prompts(10)]
    assert turns.count(1) == turns.count(2 * SHOTS + 1) == 5 * len(TASKS)


def test_no_held_out_prompt_is_shown() -> None:
    held_out = {e.prompt for name, task in TASKS.items() for e in task.split(RECIPES[name].examples)[1]}
    shown = {text for conversation in task_prompts(48) for role, text in conversation if role == "user"}
    assert shown
    assert not shown & held_out
