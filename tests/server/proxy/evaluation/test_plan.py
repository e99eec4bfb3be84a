"""What is refused before anything is started."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.plan import Plan, planned
from tests.adapters.small_adapters import small_adapter
from tests.server.proxy.configurations import LLAMA31_8B, write_model
from tests.server.proxy.evaluation.described import LARGE_CONFIG, SMALL_CONFIG, WEIGHTS, described, written


def plan_in(folder: Path, description: dict[str, Any]) -> Plan:
    return planned(written(folder, description), print)


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


@pytest.mark.parametrize("place", ["spec", "here"])
def test_a_chat_template_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    for folder in ("spec", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    description = described(tmp_path / "spec")
    (tmp_path / place / "x.jinja").write_text(f"{{{{ {place} }}}}")
    for words in (["--chat-template", "x.jinja"], "--chat-template=x.jinja"):
        assert plan_in(tmp_path / "spec", {**description, "vllm": words}).template == f"{{{{ {place} }}}}"
    (tmp_path / place / "x.jinja").unlink()
    with pytest.raises(InvalidEvaluation, match="--chat-template x.jinja: there is no such file"):
        plan_in(tmp_path / "spec", {**description, "vllm": "--chat-template x.jinja"})
    given = plan_in(tmp_path / "spec", {**description, "vllm": ["--chat-template", "{{ messages[0] }}"]})
    assert given.template == "{{ messages[0] }}"


def test_several_chat_templates(tmp_path: Path) -> None:
    description = described(tmp_path)
    several = [{"name": "rag", "template": "r"}, {"name": "tools", "template": "t"}]
    config = tmp_path / "large-model/tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": [*several, {"name": "default", "template": "d"}]}))
    assert plan_in(tmp_path, description).template == "d"
    config.write_text(json.dumps({"chat_template": several}))
    with pytest.raises(InvalidEvaluation, match=r"several chat templates \(rag, tools\), none called default"):
        plan_in(tmp_path, description)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--port 1", "vllm: --port is set by LoraLoom"),
        ("--quantization fp8", "vllm: --quantization does not go with --proxy-small"),
        ("-pp 2", "vllm: -pp does not go with --proxy-small"),
    ],
)
def test_what_serve_would_refuse_is_told_once_before_the_first_server(tmp_path: Path, words: str, reason: str) -> None:
    with pytest.raises(InvalidEvaluation) as caught:
        plan_in(tmp_path, described(tmp_path, vllm=words))
    (told,) = str(caught.value).splitlines()[1:]
    assert told.strip().startswith(reason)


def test_every_server_gets_the_length_of_the_model_with_the_shortest(tmp_path: Path) -> None:
    description = described(tmp_path)
    assert plan_in(tmp_path, description).vllm == ()
    short = {**SMALL_CONFIG, "max_position_embeddings": 4096}
    description["small"] = write_model(tmp_path / "short", short, weights=WEIGHTS).name
    assert plan_in(tmp_path, description).vllm == ("--max-model-len", "4096")
    chosen = ("--max-model-len", "2048")
    assert plan_in(tmp_path, {**description, "vllm": list(chosen)}).vllm == chosen
    with pytest.raises(InvalidEvaluation, match="--max-model-len 8192: the small model knows 4096 positions"):
        plan_in(tmp_path, {**description, "vllm": "--max-model-len 8192"})


def test_the_type_that_was_chosen_is_known(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, described(tmp_path, vllm="--dtype bfloat16"))
    assert plan.dtypes == dict.fromkeys(("large", "proxy", "small"), "bfloat16")


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
