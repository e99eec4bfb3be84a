"""A conversion is compared with its original on the tiny model, from training to the row of the table."""

import json
import warnings
from pathlib import Path

import peft
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from . import kinds
from .kinds_recipes import FULL, KindRecipe
from .task import HELD_OUT, Task

FIELDS = {"target_modules": ["q_proj", "up_proj", "down_proj"]}
RECIPES = [
    (KindRecipe("lokr", "LoKr", peft.LoKrConfig, {"r": 4, **FIELDS}, 1e-2, 4), 2),
    (KindRecipe("lora", "LoRA", peft.LoraConfig, {"r": 4, **FIELDS}, 1e-2, 4), None),
    (KindRecipe(FULL, "full fine-tune", None, {}, 1e-3, 4), 2),
]


@pytest.fixture
def tiny(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The command's task and base replaced by ones that need no download; returns the folder that it writes to."""
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    words = ("one", "two", "three", "four", "five", "six")
    task = Task("toy", "", lambda source: (" ".join(source.choices(words, k=4)), source.choice(("red", "green"))))
    monkeypatch.setattr(kinds, "prepare", lambda: tmp_path / "base")
    monkeypatch.setattr(kinds, "TASK", task)
    monkeypatch.setattr(kinds, "OUT", tmp_path / "kinds")
    return tmp_path / "kinds"


@pytest.mark.parametrize(("recipe", "rank"), RECIPES, ids=[recipe.kind for recipe, _ in RECIPES])
def test_a_kind_is_trained_converted_and_compared(tiny: Path, recipe: KindRecipe, rank: int | None) -> None:
    assert kinds.PROMPTS < HELD_OUT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds._train(recipe, tiny / recipe.kind)
        rows = kinds._measure(recipe, tiny / recipe.kind, [rank] if rank else [])
    assert [row.chosen for row in rows] == [False, True][: len(rows)]
    assert rows[0].task_kl < rows[0].task_base_kl
    assert {row.prompts for row in rows} == {kinds.PROMPTS}
    if rank is None:
        assert (rows[0].exact, rows[0].kl, rows[0].rank) == (True, None, 4)
        assert rows[0].task_kl < 1e-8
    else:
        assert rows[1].rank == rank
        assert rows[1].relative_error > rows[0].relative_error
        assert rows[1].kl is not None
    config = json.loads((tiny / f"{recipe.kind}-as-lora-default" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
