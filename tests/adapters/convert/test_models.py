"""Models are loaded from safetensors alone, and only what LoRA can change counts as linear."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from loraloom.adapters.convert.models import linear_layers, load_model, load_tokenizer, weight
from loraloom.adapters.errors import InvalidBase


def test_a_model_keeps_its_type_unless_told(tiny_base: Path) -> None:
    assert {parameter.dtype for parameter in load_model(tiny_base).parameters()} == {torch.float32}
    assert next(load_model(tiny_base, "bfloat16").parameters()).dtype == torch.bfloat16
    assert not load_model(tiny_base).training


def test_pickles_are_not_read(tiny_base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidBase, match="cannot be loaded"):
        load_model(tmp_path)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidBase, match="cannot be loaded"):
        load_model(tmp_path)
    with pytest.raises(InvalidBase, match="neither a folder nor an id"):
        load_model("not a/model/at all")
    with pytest.raises(InvalidBase, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_a_quantised_model_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidBase, match="quantised.*full precision"):
        load_model(tmp_path)


def test_a_tied_output_layer_is_not_linear(tiny_base: Path, biased_base: Path) -> None:
    tied = dict(linear_layers(load_model(tiny_base)))
    own = dict(linear_layers(load_model(biased_base)))
    assert len(tied) == 14
    assert own.keys() - tied.keys() == {"lm_head"}


def test_transposed_weights_are_turned() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    layers = dict(linear_layers(model))
    assert len(layers) == 4
    assert weight(layers["transformer.h.0.attn.c_attn"]).shape == (24, 8)
    assert weight(layers["transformer.h.0.attn.c_attn"]).dtype == torch.float64
