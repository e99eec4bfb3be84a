"""One recipe for each kind of adapter that is converted: what peft is told, and how fast it learns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import peft
from peft import PeftConfig

from .recipe import Recipe

STEPS = 40
BATCH = 8
FULL = "full"
"""The recipe that trains every weight of the model itself, without peft."""

_TARGETS = ("down_proj", "q_proj", "up_proj", "v_proj")


@dataclass(frozen=True)
class KindRecipe:
    """How one adapter of a kind is trained on the demo's `date` task.

    Attributes:
        kind: the name on the command line, and of the adapter's folder.
        label: the name in the table.
        make: peft's configuration class of it; None for the full fine-tune.
        fields: what that class is told.
        rate: peak learning rate.
        steps: optimiser steps of `BATCH` examples each.
    """

    kind: str
    label: str
    make: Callable[..., PeftConfig] | None
    fields: Mapping[str, Any]
    rate: float
    steps: int = STEPS

    def config(self) -> PeftConfig:
        """A new configuration: peft keeps and changes the one that it is given."""
        assert self.make is not None, "the full fine-tune has no configuration"
        return self.make(task_type="CAUSAL_LM", **{"target_modules": list(_TARGETS), **self.fields})

    def recipe(self) -> Recipe:
        """The same for `tests.zoo.train`, which wants a LoRA's rank that nothing here reads."""
        return Recipe(1, 1, _TARGETS, steps=self.steps, batch=BATCH, rate=self.rate)


def _lora(kind: str, label: str, rate: float = 1e-3, steps: int = STEPS, **fields: Any) -> KindRecipe:
    return KindRecipe(kind, label, peft.LoraConfig, {"r": 8, "lora_alpha": 16, **fields}, rate, steps)


_ALL = (
    _lora("dora", "DoRA", use_dora=True),
    KindRecipe("ia3", "(IA)³", peft.IA3Config, {"feedforward_modules": ["down_proj", "up_proj"]}, 2e-2),
    KindRecipe("oft", "OFT", peft.OFTConfig, {"oft_block_size": 32, "use_cayley_neumann": True}, 1e-3),
    KindRecipe("lokr", "LoKr", peft.LoKrConfig, {"r": 8, "alpha": 16, "decompose_both": True}, 4e-3),
    KindRecipe("loha", "LoHa", peft.LoHaConfig, {"r": 8, "alpha": 16}, 4e-3),
    KindRecipe("vera", "VeRA", peft.VeraConfig, {"r": 64}, 1e-2),
    KindRecipe(
        "adalora",
        "AdaLoRA",
        peft.AdaLoraConfig,
        {"init_r": 12, "target_r": 8, "lora_alpha": 16, "tinit": 8, "tfinal": 12, "deltaT": 2, "total_step": STEPS},
        4e-3,
    ),
    _lora("pissa", "PiSSA", 2e-4, init_lora_weights="pissa"),
    _lora("olora", "OLoRA", 1e-4, 20, init_lora_weights="olora"),
    _lora("eva", "EVA", steps=20, init_lora_weights="eva", eva_config=peft.EvaConfig()),
    # On all of the targets, a step takes minutes: BOFT multiplies whole matrices of the inputs' size.
    KindRecipe(
        "boft",
        "BOFT",
        peft.BOFTConfig,
        {"boft_block_size": 8, "boft_n_butterfly_factor": 1, "target_modules": ["q_proj", "v_proj"]},
        4e-3,
        20,
    ),
    KindRecipe(FULL, "full fine-tune", None, {}, 3e-5, 15),
)
RECIPES: Mapping[str, KindRecipe] = {recipe.kind: recipe for recipe in _ALL}
