"""A comparison from end to end, with servers that have no model."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from loraloom.server.proxy.evaluation.errors import EvaluationFailed, InvalidEvaluation
from loraloom.server.proxy.evaluation.plan import Plan, planned
from loraloom.server.proxy.evaluation.result import Result
from loraloom.server.proxy.evaluation.run import evaluate
from tests.server.proxy.evaluation.described import described, plan_of, written

ROOT = Path(__file__).parents[4]
FAKE = (sys.executable, "-m", "tests.server.proxy.evaluation.fake_chat")
HALF, THIRDS = 0.5, pytest.approx(4 / 6)


def evaluated(plan: Plan, out: Path, told: list[str] | None = None, **environment: str) -> Result:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "LORALOOM_PORT": "1", **environment}
    return evaluate(plan, out, variables, [].append if told is None else told.append, FAKE)


def plan_in(folder: Path, **fields: Any) -> Plan:
    return planned(written(folder, described(folder, **fields)), print)


def logged(out: Path, server: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{server}.log").read_text().splitlines()]


def test_every_arm_gets_what_it_answers(tmp_path: Path) -> None:
    told: list[str] = []
    out = tmp_path / "deep/out"
    result = evaluated(plan_in(tmp_path, vllm="--dtype float32"), out, told)
    accuracy = {arm: score.accuracy.value for arm, score in result.means.items()}
    assert accuracy == {
        "large": 0,
        "large-shots": 0,
        "small": 0,
        "small-tuned": HALF,
        "proxy~0.5": THIRDS,
        "proxy~1": THIRDS,
        "proxy~1.5": THIRDS,
        "large-tuned": 1,
    }
    assert result.complete
    assert result.gap is not None
    assert (result.gap.headline.share, result.gap.best_alpha) == (THIRDS, 1)
    assert set(result.speeds) == set(accuracy)
    assert {path.name for path in out.iterdir()} == {
        "answers.jsonl", "large.log", "proxy.log", "report.png", "result.json", "small.log",
    }  # fmt: skip
    assert json.loads((out / "result.json").read_text()) == json.loads(result.text())
    assert [text for text in told if text.startswith("[")] == [
        "[1/3] large: large alone, large, 2 examples in the prompt, large, tuned directly",
        "[2/3] proxy: proxy-tuned, alpha 0.5, proxy-tuned, alpha 1, proxy-tuned, alpha 1.5",
        "[3/3] small: small alone, small, tuned",
    ]
    (start, first, *_) = logged(out, "proxy")
    words = start["arguments"]
    assert words[0] == str(tmp_path / "large-model")
    assert words[words.index("--proxy-small") + 1] == str(tmp_path / "small-model")
    assert words[words.index("--") + 1 :][:3] == ["--dtype", "float32", "--chat-template"]
    assert first["temperature"] == 0
    with pytest.raises(InvalidEvaluation, match="choose another --out"):
        evaluated(plan_of(), out)


def test_a_server_that_does_not_start_leaves_what_the_one_before_gave(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(EvaluationFailed, match="(?s)ended with status 1. .*it does not fit into memory"):
        evaluated(plan_in(tmp_path), out, FAKE_ENDS="--proxy-small")
    result = json.loads((out / "result.json").read_text())
    assert result["complete"] is False
    assert set(result["means"]) == {"large", "large-shots", "large-tuned"}
    assert (out / "report.png").is_file()
    assert not list(out.glob(".work-*"))
