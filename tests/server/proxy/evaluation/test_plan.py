"""What is refused before anything is started."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.plan import Plan, planned
from loraloom.server.proxy.evaluation.spec import read_spec
from tests.adapters.small_adapters import small_adapter
from tests.server.proxy.configurations import LLAMA31_8B, write_model
from tests.server.proxy.evaluation.described import LARGE_CONFIG, SMALL_CONFIG, WEIGHTS, described, written


def plan_in(folder: Path, description: dict[str, Any]) -> Plan:
    return planned(read_spec(written(folder, description)), print)


def test_a_description_that_fits(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, described(tmp_path))
    assert [task.name for task in plan.tasks] == ["date", "sql"]
    assert plan.models.small == str(tmp_path / "small-model")
    assert (plan.models.expert, plan.template) == (None, "{{ messages }}")


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    description = described(tmp_path)
    (tmp_path / "date.jsonl").unlink()
    (tmp_path / "sql-large/adapter_model.safetensors").unlink()
    description["tasks"][0]["small_adapter"] = "nowhere"
    with pytest.raises(InvalidEvaluation) as caught:
        plan_in(tmp_path, description)
    told = str(caught.value).splitlines()
    assert len(told) == 4
    assert "date.jsonl cannot be read" in told[1]
    assert "date, small_adapter" in told[2]
    assert "there is no such folder" in told[2]
    assert "sql, large_adapter" in told[3]


def test_an_adapter_of_another_model(tmp_path: Path) -> None:
    description = described(tmp_path)
    other = {"model.layers.0.self_attn.q_proj.weight": (16, 16)}
    description["large"] = write_model(tmp_path / "other", {**LLAMA31_8B, "vocab_size": 8}, weights=other).name
    with pytest.raises(InvalidEvaluation, match="date, large_adapter .* have another shape"):
        plan_in(tmp_path, description)


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    description = described(tmp_path)
    tokens = {"model": {"type": "BPE", "vocab": {"x": 0, "y": 1}, "merges": []}, "added_tokens": []}
    other = write_model(tmp_path / "other", LARGE_CONFIG, tokenizer=tokens, weights=WEIGHTS)
    with pytest.raises(InvalidEvaluation, match="cannot steer"):
        plan_in(tmp_path, {**description, "large": other.name})


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidEvaluation, match="the demo has no model 'demo:huge'"):
        plan_in(tmp_path, described(tmp_path, large="demo:huge"))


def test_without_a_chat_template_one_must_be_named(tmp_path: Path) -> None:
    description = described(tmp_path)
    (tmp_path / "large-model/tokenizer_config.json").write_text("{}")
    with pytest.raises(InvalidEvaluation, match="has no chat template: name one as `vllm: .--chat-template, FILE.`"):
        plan_in(tmp_path, description)
    for words in (["--chat-template", "x.jinja"], "--chat-template=x.jinja"):
        assert plan_in(tmp_path, {**description, "vllm": words}).template is None


def test_an_expert(tmp_path: Path) -> None:
    description = described(tmp_path, expert="tuned")
    write_model(tmp_path / "tuned", SMALL_CONFIG)
    for task in description["tasks"]:
        del task["small_adapter"]
    assert plan_in(tmp_path, description).models.expert == str(tmp_path / "tuned")


def test_an_adapter_that_is_not_plain_lora(tmp_path: Path) -> None:
    description = described(tmp_path)
    folder = small_adapter(tmp_path / "dora", 9)
    config = yaml.safe_load((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(yaml.safe_dump({**config, "use_dora": True}).replace("'", '"'))
    description["tasks"][1]["large_adapter"] = "dora"
    with pytest.raises(InvalidEvaluation, match="sql, large_adapter"):
        plan_in(tmp_path, description)
