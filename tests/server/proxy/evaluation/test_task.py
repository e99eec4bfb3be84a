"""Tasks with their files."""

import hashlib
from pathlib import Path

import pytest

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.spec import TaskSpec
from loraloom.server.proxy.evaluation.task import read_task
from tests.server.proxy.evaluation.described import asked, write_questions


@pytest.fixture
def spec(tmp_path: Path) -> TaskSpec:
    test = write_questions(tmp_path / "t.jsonl", asked("date", "test", 4))
    return TaskSpec(name="date", test=test, shots=write_questions(tmp_path / "s.jsonl", asked("date", "shot", 3)))


def test_the_first_shots_are_taken(spec: TaskSpec) -> None:
    task = read_task(spec, 2)
    assert [shot.prompt for shot in task.shots] == ["date shot 0", "date shot 1"]
    assert (task.name, len(task.questions)) == ("date", 4)
    assert task.digest == hashlib.sha256(spec.test.read_bytes()).hexdigest()
    assert read_task(spec, 0).shots == ()


def test_too_few_shots(spec: TaskSpec) -> None:
    with pytest.raises(InvalidEvaluation, match="has 3 examples: add some, or ask for fewer"):
        read_task(spec, 4)


def test_a_shot_that_is_also_asked(spec: TaskSpec) -> None:
    assert spec.shots is not None
    write_questions(spec.shots, [*asked("date", "shot", 1), *asked("date", "test", 1)])
    with pytest.raises(InvalidEvaluation, match="tells what .* asks .'date test 0'."):
        read_task(spec, 2)
    assert len(read_task(spec, 1).shots) == 1
