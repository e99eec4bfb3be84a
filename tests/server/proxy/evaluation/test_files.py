"""What a comparison leaves behind."""

import json
from pathlib import Path

import pytest

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.files import refuse_complete, write
from tests.server.proxy.evaluation.described import found, measured_of, plan_of


def test_a_complete_result_is_kept(tmp_path: Path) -> None:
    refuse_complete(tmp_path / "none")
    for text in (found(plan_of(), complete=False).text(), "[]", "{"):
        (tmp_path / "result.json").write_text(text)
        refuse_complete(tmp_path)
    (tmp_path / "result.json").write_text(found(plan_of()).text())
    with pytest.raises(InvalidEvaluation, match="holds a complete comparison: choose another --out"):
        refuse_complete(tmp_path)


def test_figures_answers_and_a_picture(tmp_path: Path) -> None:
    plan = plan_of(questions=5)
    measured = measured_of(plan)
    result = found(plan, measured)
    (tmp_path / "report.png").write_text("of an earlier run")
    write(result, plan, measured, tmp_path)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "report.png", "result.json"]
    assert (tmp_path / "result.json").read_text() == result.text()
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 8 * 5
    assert {"task", "arm", "prompt", "expected", "answer", "cut", "tokens", "right"} == set(lines[0])
    for arm, score in result.tasks["sql"].items():
        right = [line["right"] for line in lines if (line["task"], line["arm"]) == ("sql", arm)]
        assert sum(right) / len(right) == score.accuracy.value
