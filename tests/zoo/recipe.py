"""How each adapter is trained: its rank, its target modules and the number of steps."""

from dataclasses import dataclass, field
from typing import Any

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
_MIXED = ("q_proj", "v_proj", "up_proj", "down_proj")
_LAST_TEN = tuple(range(20, 30))


@dataclass(frozen=True)
class Recipe:
    """Everything besides the task that decides what an adapter becomes.

    Attributes:
        rank: LoRA rank of each adapted module.
        alpha: LoRA scaling is alpha / rank, or alpha / sqrt(rank) for rsLoRA.
        targets: the adapted modules' names.
        steps: optimiser steps of `batch` examples each.
        rate: peak learning rate, reached after a tenth of the steps, then lowered linearly to zero.
        more: further fields of peft's LoraConfig.
    """

    rank: int
    alpha: int
    targets: tuple[str, ...]
    steps: int = 60
    batch: int = 8
    rate: float = 1e-3
    seed: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """How many training examples the recipe uses, each once where the task has so many."""
        return self.steps * self.batch


RECIPES: dict[str, Recipe] = {
    "date": Recipe(8, 16, _MIXED),
    "words": Recipe(8, 16, _MIXED),
    "sql": Recipe(16, 32, ATTENTION + MLP, steps=40, more={"layers_to_transform": _LAST_TEN}),
    "units": Recipe(
        8,
        16,
        _MIXED,
        steps=50,
        more={
            "rank_pattern": {"q_proj": 16, "down_proj": 4},
            "alpha_pattern": {"q_proj": 32, "down_proj": 8},
        },
    ),
    "money": Recipe(16, 8, ("o_proj", "down_proj"), steps=40, more={"use_rslora": True}),
    "name": Recipe(16, 32, ("q_proj", "v_proj"), steps=50),
    "home": Recipe(4, 8, MLP, steps=40, more={"layers_to_transform": _LAST_TEN}),
    "topic": Recipe(8, 16, _MIXED),
}

SMALL_RECIPES: dict[str, Recipe] = {
    "sql": Recipe(8, 16, ATTENTION + MLP, steps=60, rate=2e-3),
    "topic": Recipe(8, 16, ATTENTION + MLP, steps=60, rate=2e-3),
    "date": Recipe(8, 16, ATTENTION + MLP, steps=80, rate=2e-3),
    "name": Recipe(8, 16, ATTENTION + MLP, steps=80, rate=2e-3),
    "money": Recipe(8, 16, ATTENTION + MLP, steps=80, rate=2e-3),
    "words": Recipe(8, 16, ATTENTION + MLP, steps=100, rate=2e-3),
}
"""Of the small model's adapters: it takes more modules and a higher rate to learn the same."""
