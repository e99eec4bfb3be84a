"""The model card of a demo adapter: what was measured, as JSON for programs and as a page for people."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .base import Base
from .recipe import Recipe
from .task import Example, Task


@dataclass(frozen=True)
class Accuracy:
    """Exact matches in percent of `prompts` held-out prompts, with greedy decoding."""

    prompts: int
    base: float
    base_with_five_examples: float
    adapter: float

    @property
    def gain(self) -> float:
        """Points over the better of the two ways to ask the base."""
        return self.adapter - max(self.base, self.base_with_five_examples)


@dataclass(frozen=True)
class Card:
    """What is known about one adapter."""

    name: str
    about: str
    rank: int
    alpha: int
    targets: tuple[str, ...]
    options: dict[str, object]
    seed: int
    steps: int
    batch: int
    examples: int
    seconds: int
    accuracy: Accuracy

    @classmethod
    def of(cls, task: Task, recipe: Recipe, examples: int, seconds: float, accuracy: Accuracy) -> "Card":
        """The card of an adapter trained on so many `examples` in so many `seconds`."""
        return cls(
            name=task.name,
            about=task.about,
            rank=recipe.rank,
            alpha=recipe.alpha,
            targets=recipe.targets,
            options=recipe.more,
            seed=recipe.seed,
            steps=recipe.steps,
            batch=recipe.batch,
            examples=examples,
            seconds=round(seconds),
            accuracy=accuracy,
        )

    def fields(self) -> dict[str, object]:
        """The card as plain values, in order."""
        return asdict(self)


def write(card: Card, base: Base, shown: list[Example], folder: Path) -> None:
    """Write card.json, README.md and examples.jsonl.

    Args:
        base: what the adapter was trained on.
        shown: held-out examples that the adapter answers right.
    """
    (folder / "card.json").write_text(json.dumps(card.fields(), indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page(card, base, shown[0]), encoding="utf-8")
    lines = [json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in shown]
    (folder / "examples.jsonl").write_text("".join(lines), encoding="utf-8")


def page(card: Card, base: Base, example: Example) -> str:
    """The card as Markdown, with the front matter that the Hugging Face hub reads."""
    options = "".join(f"| {key} | `{json.dumps(value)}` |\n" for key, value in card.options.items())
    return f"""---
base_model: {base.name}
library_name: peft
license: apache-2.0
pipeline_tag: text-generation
---
# {card.name}

{card.about}

    user       {example.prompt}
    assistant  {example.expected}

## Accuracy

Exact match on {card.accuracy.prompts} held-out prompts, greedy decoding, float32 compute. The held-out prompts come
from the same generator as the training prompts, and none of them is among those.

| | percent right |
|---|---|
| base, no example | {card.accuracy.base:g} |
| base, five examples in the prompt | {card.accuracy.base_with_five_examples:g} |
| this adapter | {card.accuracy.adapter:g} |

`examples.jsonl` holds ten of the held-out prompts, chosen among those that the adapter answers right.

## Training

| | |
|---|---|
| rank, alpha | {card.rank}, {card.alpha} |
| target modules | {", ".join(card.targets)} |
{options}| seed | {card.seed} |
| steps | {card.steps} of {card.batch} prompts; {card.examples} different prompts |
| time | {card.seconds} s on two CPU cores |

Trained in float32, stored in bfloat16 and measured as stored. To train it again:

    python -m tests.zoo train {card.name}{base.words}
"""
