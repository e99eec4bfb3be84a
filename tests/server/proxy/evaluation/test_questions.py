"""Questions, and which answers to them are right."""

from pathlib import Path

import pytest

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.questions import Question, read_questions
from loraloom.server.proxy.evaluation.spec import Matcher


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Lima", {"exact", "contains", "prefix"}),
        (" Lima\n", {"exact", "contains", "prefix"}),
        ("Lima, of course", {"contains", "prefix"}),
        ("It is Lima.", {"contains"}),
        ("lima", set()),
        ("", set()),
    ],
)
def test_what_is_right(answer: str, right: set[Matcher]) -> None:
    question = Question("The capital of Peru?", "Lima ")
    matchers: tuple[Matcher, ...] = ("exact", "contains", "prefix")
    assert {matcher for matcher in matchers if question.accepts(answer, matcher)} == right


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "a", "expected": "ä"}\n\n{"expected": "d", "prompt": "c"}\n', encoding="utf-8")
    assert read_questions(path) == (Question("a", "ä"), Question("c", "d"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "is empty: give one a line"),
        ("no", r"t.jsonl, line 1 is no JSON"),
        ("[1]", 'line 1: write {"prompt": "…", "expected": "…"}'),
        ('{"prompt": "a"}', "line 1: write"),
        ('{"prompt": "a", "expected": "b", "more": 1}', "and nothing else"),
        ('{"prompt": "a", "expected": 4}', "line 1: prompt and expected are texts"),
        ('{"prompt": "a", "expected": " "}', "and not empty"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(InvalidEvaluation, match=message):
        read_questions(tmp_path / "t.jsonl")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidEvaluation, match="cannot be read as text"):
        read_questions(tmp_path / "t.jsonl")
