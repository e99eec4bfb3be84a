"""Every task is seeded, keeps its held-out prompts apart, and tells right answers from wrong ones."""

import datetime
import json
import re

import pytest

from .recipe import RECIPES
from .task import HELD_OUT, Example, Task
from .tasks import TASKS
from .tasks.quantities import in_words

each = pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)


def expected(name: str) -> dict[str, str]:
    training, held_out = TASKS[name].split(400)
    return {example.prompt: example.expected for example in training + held_out}


def test_every_task_has_a_recipe() -> None:
    assert TASKS.keys() == RECIPES.keys()
    assert all(task.name == name for name, task in TASKS.items())


@each
def test_split_repeats_with_its_seed_alone(task: Task) -> None:
    assert task.split(50, seed=1) == task.split(50, seed=1)
    assert task.split(50, seed=1) != task.split(50, seed=2)


@each
def test_held_out_prompts_are_distinct_and_never_trained_on(task: Task) -> None:
    training, held_out = task.split(RECIPES[task.name].examples)
    prompts = [example.prompt for example in held_out]
    assert len(set(prompts)) == len(prompts) == HELD_OUT
    assert not {example.prompt for example in training} & set(prompts)


@each
def test_held_out_prompts_do_not_depend_on_how_many_are_trained_on(task: Task) -> None:
    assert task.split(10)[1] == task.split(200)[1]


@each
def test_has_enough_different_examples_for_its_recipe(task: Task) -> None:
    wanted = RECIPES[task.name].examples
    assert len(task.split(wanted)[0]) >= min(wanted, 400)


@each
def test_one_prompt_has_one_answer(task: Task) -> None:
    training, held_out = task.split(2000, seed=3)
    answers = {example.prompt: example.expected for example in training + held_out}
    again = [example for part in task.split(2000, seed=4) for example in part]
    assert all(answers.get(example.prompt, example.expected) == example.expected for example in again)


@pytest.mark.parametrize("answer", ["1958-06-23", " 1958-06-23\n"])
def test_accepts_the_expected_answer(answer: str) -> None:
    assert Example("Write this date in ISO format: Jun 23rd, 1958", "1958-06-23").accepts(answer)


@pytest.mark.parametrize("answer", ["", "1958-06-24", "1958-06-23.", "The date is 1958-06-23", "1958-6-23"])
def test_refuses_any_other_answer(answer: str) -> None:
    assert not Example("Write this date in ISO format: Jun 23rd, 1958", "1958-06-23").accepts(answer)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (612, "six hundred twelve"),
        (1000, "one thousand"),
        (3007, "three thousand seven"),
        (9999, "nine thousand nine hundred ninety-nine"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


def test_dates_name_their_month_and_year() -> None:
    for prompt, answer in expected("date").items():
        day = datetime.date.fromisoformat(answer)
        assert f"{day:%b}" in prompt
        assert str(day.year) in prompt


def test_units_state_a_true_equation() -> None:
    factors = {"kilometres m": 1000, "tonnes kg": 1000, "metres cm": 100, "hectares m2": 10_000, "weeks d": 7}
    checked = set()
    for answer in expected("units").values():
        amount, given, _, result, symbol = answer.split(" ")
        if factor := factors.get(f"{given} {symbol}"):
            assert float(result.replace(",", "")) == pytest.approx(float(amount) * factor)
            checked.add(given)
    assert len(checked) == len(factors)


def test_home_commands_are_json() -> None:
    assert all(json.loads(answer).keys() == {"set", "to"} for answer in expected("home").values())


def test_names_are_cited_by_last_name_and_initials() -> None:
    for prompt, answer in expected("name").items():
        given = prompt.split(": ")[1].removeprefix("Dr. ").removeprefix("Prof. ").split(", ")[0].split(" ")
        assert answer == f"{given[-1]}, {' '.join(f'{name[0]}.' for name in given[:-1])} ({prompt[-4:]})"


def test_sql_uses_the_table_of_the_question() -> None:
    for prompt, answer in expected("sql").items():
        table = re.findall(r"FROM (\w+)", answer)
        assert len(table) == 1
        assert table[0] in prompt
        assert answer.endswith(";")


def test_topics_are_six_and_all_drawn() -> None:
    assert set(expected("topic").values()) == {"PAY", "SHIP", "BACK", "FIX", "INFO", "THANKS"}
