"""The examples of the demo's jobs."""

import json
from pathlib import Path

import pytest

from loraloom.compose.examples import read_examples
from loraloom.demo.catalog import demo_jobs

from .jobs import FOLDER, HELD, SEEN, people, two_tasks, write
from .tasks import TASKS


@pytest.mark.parametrize(("name", "draw"), [("two-tasks", two_tasks), ("people", people)])
def test_what_is_committed_is_what_is_drawn(tmp_path: Path, name: str, draw: object) -> None:
    write(name, draw(), tmp_path)  # type: ignore[operator]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes()


@pytest.mark.parametrize("name", demo_jobs())
def test_nothing_is_in_both(name: str) -> None:
    seen, held = (read_examples(FOLDER / f"{name}{part}.jsonl") for part in ("", "-held-out"))
    assert len(seen) == SEEN
    assert len(held) == HELD or name == "chat"
    assert not {each.key for each in seen} & {each.key for each in held}


def test_no_adapter_was_trained_on_them() -> None:
    trained = {example.prompt for task in ("name", "units") for part in TASKS[task].split(400) for example in part}
    lines = [line for path in FOLDER.glob("two-tasks*.jsonl") for line in path.read_text().splitlines()]
    given = [json.loads(line)["prompt"] for line in lines]
    assert len(given) == SEEN + HELD
    assert not trained & set(given)


def test_a_person_is_filed_by_initials_and_an_iso_date() -> None:
    prompt, answer = next(people())
    assert prompt == "File this person: Bruno Elena Kowalski, born Tuesday, July 2, 1946"
    assert answer == "Kowalski, B. E. (1946-07-02)"
