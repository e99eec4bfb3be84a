"""Each kind of adapter learns, and is saved as what it is."""

import copy
import warnings
from pathlib import Path

import peft
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from loraloom.adapters.convert.kinds import kind_of

from .kinds_recipes import BATCH, FULL, KindRecipe
from .kinds_train import train_kind
from .task import Example

PAIRS = [("one", "red"), ("two", "green"), ("three", "blue"), ("four", "red")]
EXAMPLES = [Example(f"{prompt} {more}", answer) for prompt, answer in PAIRS for more in ("one", "two")]
TARGETS = {"target_modules": ["q_proj", "up_proj", "down_proj"]}
LORA = {"r": 4, "lora_alpha": 8, **TARGETS}
RECIPES = [
    KindRecipe("dora", "DoRA", peft.LoraConfig, {**LORA, "use_dora": True}, 1e-2, 30),
    KindRecipe("eva", "EVA", peft.LoraConfig, {**LORA, "init_lora_weights": "eva"}, 1e-2, 30),
    KindRecipe(
        "adalora",
        "AdaLoRA",
        peft.AdaLoraConfig,
        {"init_r": 6, "target_r": 3, "tinit": 2, "tfinal": 5, "deltaT": 1, "total_step": 30, **TARGETS},
        3e-2,
        30,
    ),
]


def _losses(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: KindRecipe, folder: Path
) -> list[float]:
    losses: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_kind(base, tokenizer, EXAMPLES, recipe, folder, lambda _, loss: losses.append(loss))
    return losses


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.kind for recipe in RECIPES])
def test_a_kind_learns_and_is_recognised(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, recipe: KindRecipe
) -> None:
    assert len(EXAMPLES) == BATCH
    losses = _losses(base, tokenizer, recipe, tmp_path)
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 4
    assert kind_of(tmp_path).name == recipe.label


def test_the_whole_model_learns(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    before = copy.deepcopy(base)
    losses = _losses(base, tokenizer, KindRecipe(FULL, "full", None, {}, 1e-2, 20), tmp_path)
    assert losses[-1] < losses[0] / 4
    saved = LlamaForCausalLM.from_pretrained(tmp_path)
    assert not saved.model.norm.weight.equal(before.model.norm.weight)
    assert (tmp_path / "tokenizer.json").exists()
