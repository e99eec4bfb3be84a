"""Training learns, repeats with its seed, and writes what peft reads."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .chat import answers
from .recipe import Recipe
from .task import Example
from .train import _batches, _rate, save, train

EXAMPLES = [Example("one", "red"), Example("two", "green"), Example("three", "blue blue"), Example("four", "red blue")]
RECIPE = Recipe(4, 8, ("up_proj", "q_proj", "down_proj"), steps=40, batch=4, rate=1e-2)


def trained(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, losses: list[float]) -> PeftModel:
    return train(base, tokenizer, EXAMPLES, RECIPE, lambda _, loss: losses.append(loss))


def test_learns_the_answers_and_their_end(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    losses: list[float] = []
    model = trained(base, tokenizer, losses)
    assert losses[-1] < 0.1 < 1 < losses[0]
    assert answers(model, tokenizer, [e.prompt for e in EXAMPLES], limit=6) == [e.expected for e in EXAMPLES]


def test_saved_files_repeat_and_load_in_bfloat16(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    for folder in (tmp_path / "first", tmp_path / "second"):
        model = trained(base, tokenizer, [])
        save(model, folder, "tiny")
        base = model.unload()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    tensors = load_file(tmp_path / "first" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "first" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == ["down_proj", "q_proj", "up_proj"]
    again = PeftModel.from_pretrained(base, str(tmp_path / "first"))
    assert answers(again, tokenizer, [e.prompt for e in EXAMPLES], limit=6) == [e.expected for e in EXAMPLES]


def test_rate_rises_then_falls() -> None:
    rates = [_rate(step, 60) for step in range(60)]
    assert rates[5] == max(rates) == 1.0
    assert rates[:6] == sorted(rates[:6])
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert min(rates) > 0


def test_batches_use_every_example_before_any_twice() -> None:
    encoded = [([number], [number]) for number in range(12)]
    source = _batches(encoded, RECIPE)
    seen = [row for _ in range(3) for row in next(source)]
    assert sorted(seen) == encoded
    assert len(next(source)) == RECIPE.batch


def test_too_few_examples_for_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="4 examples"):
        next(_batches([([1], [1])], RECIPE))
