"""Kinds are told by their configuration, and what cannot be converted is refused with the reason."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftType, TaskType
from safetensors.torch import load_file, save_file

from loraloom.adapters.convert import kinds
from loraloom.adapters.convert.kinds import Kind, kind_of
from loraloom.adapters.errors import InvalidAdapter, UnsupportedAdapter

from .conftest import MakeKind


def _changed(folder: Path, **fields: object) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


@pytest.mark.parametrize(
    ("config", "fields", "kind"),
    [
        (peft.LoraConfig, {}, Kind("LoRA", "plain")),
        (peft.LoraConfig, {"use_rslora": True, "rank_pattern": {"q_proj": 2}}, Kind("LoRA", "plain")),
        (peft.LoraConfig, {"use_dora": True}, Kind("DoRA", "approximate")),
        (peft.LoraConfig, {"init_lora_weights": "pissa"}, Kind("PiSSA", "exact", changes_base=True)),
        (peft.LoraConfig, {"init_lora_weights": "olora"}, Kind("OLoRA", "exact", changes_base=True)),
        (peft.VeraConfig, {}, Kind("VeRA", "exact")),
        (peft.LoHaConfig, {}, Kind("LoHa", "exact")),
        (peft.LoKrConfig, {}, Kind("LoKr", "approximate")),
        (peft.IA3Config, {"feedforward_modules": []}, Kind("(IA)³", "approximate")),
    ],
)
def test_what_peft_saves_is_recognised(make_kind: MakeKind, config: Any, fields: dict[str, Any], kind: Kind) -> None:
    assert kind_of(make_kind(config, **fields)) == kind


def test_initialisations_are_recognised(make_kind: MakeKind) -> None:
    folder = make_kind(peft.LoraConfig)
    assert kind_of(_changed(folder, init_lora_weights="eva")) == Kind("EVA", "plain")
    assert kind_of(_changed(folder, init_lora_weights="PiSSA")).name == "PiSSA"
    _changed(folder, init_lora_weights=True, fan_in_fan_out=True)
    assert kind_of(folder) == Kind("LoRA of transposed weights", "exact")


def test_every_kind_of_the_installed_peft_has_its_place() -> None:
    known = {"LORA", *kinds._EXACT, *kinds._APPROXIMATE, *kinds._REFUSED}
    assert known == {kind.value for kind in PeftType}
    assert not kinds._EXACT.keys() & kinds._APPROXIMATE.keys()


@pytest.mark.parametrize(
    ("config", "fields", "reason"),
    [
        (peft.PromptTuningConfig, {"num_virtual_tokens": 3}, "prompt tuning.*changes no weight"),
        (peft.PrefixTuningConfig, {"num_virtual_tokens": 3}, "prefix tuning.*changes no weight"),
        (peft.PromptEncoderConfig, {"num_virtual_tokens": 3}, "P-tuning.*changes no weight"),
    ],
)
def test_prompts_are_refused(tiny_base: Path, tmp_path: Path, config: Any, fields: dict[str, Any], reason: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    peft.get_peft_model(model, config(task_type=TaskType.CAUSAL_LM, **fields)).save_pretrained(tmp_path / "given")
    with pytest.raises(UnsupportedAdapter, match=f"{reason}.*Train a LoRA"):
        kind_of(tmp_path / "given")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MULTITASK_PROMPT_TUNING", "multitask prompt tuning"),
        ("ADAPTION_PROMPT", "adaption prompt"),
        ("LN_TUNING", "LN tuning.*norms"),
        ("XLORA", "X-LoRA.*mix them"),
        ("POLY", "Poly.*mix them"),
        ("TRAINABLE_TOKENS", "tokens"),
        ("BEFT", "biases"),
        ("LILY", "cannot merge"),
        ("NEXT_YEAR", "'NEXT_YEAR' are not known here.*--base"),
    ],
)
def test_kinds_that_update_no_linear_layer_are_refused(make_kind: MakeKind, name: str, reason: str) -> None:
    with pytest.raises(UnsupportedAdapter, match=reason):
        kind_of(_changed(make_kind(peft.VeraConfig), peft_type=name))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1, 2]}, "trained tokens"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
    ],
)
@pytest.mark.parametrize("config", [peft.LoHaConfig, peft.LoraConfig])
def test_what_comes_with_an_adapter_is_refused(
    make_kind: MakeKind, config: Any, fields: dict[str, Any], reason: str
) -> None:
    folder = make_kind(config, **({"use_dora": True} if config is peft.LoraConfig else {}))
    with pytest.raises(UnsupportedAdapter, match=reason):
        kind_of(_changed(folder, **fields))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lora_bias": True}, "LoRA bias"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"arrow_config": {"top_k": 3}}, "Arrow"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer replication"),
        ({"init_lora_weights": "loftq"}, "loftq"),
    ],
)
@pytest.mark.parametrize("dora", [False, True])
def test_variants_of_lora_are_refused(make_kind: MakeKind, fields: dict[str, Any], reason: str, dora: bool) -> None:
    folder = _changed(make_kind(peft.LoraConfig), use_dora=dora, **fields)
    with pytest.raises(UnsupportedAdapter, match=reason):
        kind_of(folder)


@pytest.mark.parametrize("init", ["corda", "lora_ga", "pissa_niter_16"])
def test_a_changed_base_that_cannot_be_found_again_is_refused_with_pefts_way(make_kind: MakeKind, init: str) -> None:
    folder = _changed(make_kind(peft.LoraConfig), init_lora_weights=init)
    with pytest.raises(UnsupportedAdapter, match="path_initial_model_for_weight_conversion"):
        kind_of(folder)
    (folder / "initial").mkdir()
    (folder / "initial" / "adapter_config.json").write_text("{}")
    assert kind_of(folder).changes_base


def test_dora_on_a_changed_base_is_refused(make_kind: MakeKind) -> None:
    with pytest.raises(UnsupportedAdapter, match="DoRA initialised by PiSSA"):
        kind_of(_changed(make_kind(peft.LoraConfig), init_lora_weights="pissa", use_dora=True))


@pytest.mark.parametrize(("config", "fields"), [(peft.OFTConfig, {"oft_block_size": 8}), (peft.VeraConfig, {})])
def test_trained_biases_are_refused(
    make_kind: MakeKind, biased_base: Path, config: Any, fields: dict[str, Any]
) -> None:
    folder = make_kind(config, model=biased_base, bias="all", **fields)
    with pytest.raises(UnsupportedAdapter, match=r"bias.*bias=\"none\""):
        kind_of(folder)


def test_biases_that_a_base_does_not_have_do_not_matter(make_kind: MakeKind) -> None:
    assert kind_of(make_kind(peft.VeraConfig, bias="all")) == Kind("VeRA", "exact")


def test_a_name_that_is_too_long_is_refused_as_such(make_kind: MakeKind) -> None:
    folder = make_kind(peft.LoHaConfig)
    save_file({"a." * 250 + ".bias": torch.ones(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(InvalidAdapter, match="more than the 500 that are read"):
        kind_of(folder)


def test_a_pickle_is_refused(make_kind: MakeKind) -> None:
    folder = make_kind(peft.LoHaConfig)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InvalidAdapter, match="pickle"):
        kind_of(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_links_are_refused(make_kind: MakeKind, tmp_path: Path, name: str) -> None:
    folder = make_kind(peft.LoHaConfig)
    os.rename(folder / name, tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(InvalidAdapter, match="symbolic link"):
        kind_of(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"peft_type": 1}', "{}", '{"peft_type": "VERA"'])
def test_damaged_configurations_are_refused(make_kind: MakeKind, text: str) -> None:
    folder = make_kind(peft.LoHaConfig)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(InvalidAdapter, match="adapter_config.json"):
        kind_of(folder)


def test_damaged_weights_are_refused(make_kind: MakeKind) -> None:
    folder = make_kind(peft.LoHaConfig)
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidAdapter, match="damaged"):
        kind_of(folder)


def test_a_kind_is_told_without_torch_or_peft(make_kind: MakeKind) -> None:
    folder = make_kind(peft.LoHaConfig)
    code = (
        "import sys; from pathlib import Path; from loraloom.adapters.convert.kinds import kind_of\n"
        f"print(kind_of(Path({str(folder)!r})).name, 'torch' in sys.modules, 'peft' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["LoHa", "False", "False"]


def test_a_resized_embedding_is_not_taken_for_a_bias(make_kind: MakeKind) -> None:
    folder = make_kind(peft.LoHaConfig)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.weight"] = torch.ones(97, 32)
    save_file(tensors, folder / "adapter_model.safetensors")
    assert kind_of(folder).name == "LoHa"  # peft is asked which tensors belong there when it is converted
