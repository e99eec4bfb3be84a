"""Descriptions of comparisons: what they may say, and how they are refused."""

from pathlib import Path
from typing import Any

import pytest

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.spec import EvaluationSpec, nearest, read_spec, spec_from, written_spec

TASK = {"name": "date", "test": "t.jsonl", "shots": "s.jsonl", "small_adapter": "small", "large_adapter": "large"}
GIVEN = {"large": "org/large", "small": "org/small", "tasks": [TASK]}


def test_the_models_and_the_tasks_have_no_default() -> None:
    spec = spec_from(GIVEN)
    assert (spec.alphas, spec.shots, spec.concurrency, spec.vllm) == ((0.5, 1.0, 1.5), 5, 8, ())
    assert (spec.tasks[0].matcher, spec.tasks[0].adapter) == ("exact", "tuned/date")
    with pytest.raises(InvalidEvaluation, match="large: Field required; small: Field required; tasks: Field required"):
        spec_from({})


def test_an_expert_takes_the_place_of_adapters() -> None:
    task = {**TASK, "small_adapter": None}
    assert spec_from({**GIVEN, "expert": "org/tuned", "tasks": [task]}).expert == "org/tuned"


def test_arguments_of_vllm_may_be_one_line() -> None:
    wanted = ("--dtype", "float32", "--max-model-len", "2048")
    assert spec_from({**GIVEN, "vllm": "--dtype float32 --max-model-len 2048"}).vllm == wanted
    assert spec_from({**GIVEN, "vllm": ["--dtype", "float32", "--max-model-len", 2048]}).vllm == wanted


def test_alphas_are_put_in_order() -> None:
    assert spec_from({**GIVEN, "alphas": [2, 1, -0.5]}).alphas == (-0.5, 1.0, 2.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 1}, "alpha: there is no such field"),
        ({"alphas": [0.5]}, "alphas: 1 must be among them"),
        ({"alphas": [1, 1]}, "alphas: give each once, from -4 to 4"),
        ({"alphas": [1, 5]}, "alphas: give each once, from -4 to 4"),
        ({"shots": -1}, "shots: Input should be greater than or equal to 0"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"start_timeout": float("inf")}, "start_timeout"),
        ({"vllm": 4}, "vllm"),
        ({"tasks": []}, "tasks"),
        ({"tasks": [TASK, {**TASK, "name": "DATE"}]}, "tasks: each needs a name of its own"),
        ({"tasks": [{**TASK, "name": "two words"}]}, r"tasks.0.name: 'two words' is no name"),
        ({"tasks": [{**TASK, "name": "a/b"}]}, "tasks.0.name"),
        ({"tasks": [{**TASK, "name": "tags"}]}, "tasks.0.name"),
        ({"tasks": [{**TASK, "matcher": "regex"}]}, "tasks.0.matcher: Input should be 'exact', 'contains' or 'prefix'"),
        ({"tasks": [{**TASK, "small_adapter": None}]}, "date needs a small_adapter, or the file an expert"),
        ({"expert": "org/tuned"}, "the expert takes the place of the small_adapter of date"),
        ({"tasks": [{**TASK, "shots": None}]}, "date needs a file of shots, or the whole file `shots: 0`"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEvaluation, match=message):
        spec_from({**GIVEN, **fields})


def test_without_shots_no_file_of_them_is_needed() -> None:
    assert spec_from({**GIVEN, "shots": 0, "tasks": [{**TASK, "shots": None}]}).shots == 0


def test_a_file_says_where_its_files_are(tmp_path: Path) -> None:
    (tmp_path / "in/models").mkdir(parents=True)
    path = tmp_path / "in/spec.json"
    path.write_text(
        '{"large": "models", "small": "org/small",'
        ' "tasks": [{"name": "a", "test": "t", "shots": "../s", "small_adapter": "x"}]}'
    )
    spec = read_spec(path)
    assert (spec.large, spec.small) == (str(tmp_path / "in/models"), "org/small")
    (task,) = spec.tasks
    assert task.test == tmp_path / "in/t"
    assert task.shots == tmp_path / "in/../s"
    assert (task.small_adapter, task.large_adapter) == (tmp_path / "in/x", None)
    assert EvaluationSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_model_may_be_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("in", "here/large", "here/small", "in/small"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "in/spec.json"
    path.write_text(
        '{"large": "large", "small": "small", "shots": 0, "tasks": [{"name": "a", "test": "t", "small_adapter": "x"}]}'
    )
    spec = read_spec(path)
    assert (spec.large, spec.small) == (str(tmp_path / "here/large"), str(tmp_path / "in/small"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert nearest("~/here", path.parent) == tmp_path / "here"
    assert nearest("~nobody-has-this-name/x", path.parent) is None
    assert (written_spec(path).large, written_spec(path).tasks[0].test) == ("large", Path("t"))


@pytest.mark.parametrize("text", ["a: [", "\x00", "- 4", "4"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(InvalidEvaluation):
        read_spec(tmp_path / "spec.yaml")
    with pytest.raises(InvalidEvaluation, match="cannot be read"):
        read_spec(tmp_path / "none.yaml")
