"""Cards tell the recipe and the measurement; the committed ones are of today's recipes."""

import json
from pathlib import Path

import pytest

from loraloom.demo.catalog import DemoAdapter, demo_adapters, small_adapters

from .base import LARGE, SMALL, Base
from .card import Accuracy, Card, page, write
from .recipe import RECIPES
from .task import HELD_OUT, Example
from .tasks import TASKS

ACCURACY = Accuracy(prompts=100, base=5, base_with_five_examples=40, adapter=90)


@pytest.fixture
def card() -> Card:
    return Card.of(TASKS["sql"], RECIPES["sql"], examples=320, seconds=131.4, accuracy=ACCURACY)


def test_gain_is_over_the_better_way_to_ask() -> None:
    assert ACCURACY.gain == 50
    assert Accuracy(100, 60, 40, 90).gain == 30


def test_page_states_task_recipe_and_accuracy(card: Card) -> None:
    text = page(card, LARGE, Example("How many?", "SELECT 1;"))
    for line in (
        "    user       How many?",
        "    assistant  SELECT 1;",
        "| base, five examples in the prompt | 40 |",
        "| this adapter | 90 |",
        "| rank, alpha | 16, 32 |",
        "| layers_to_transform | `[20, 21, 22, 23, 24, 25, 26, 27, 28, 29]` |",
        "    python -m tests.zoo train sql",
    ):
        assert line in text.splitlines()


def test_page_names_the_base(card: Card) -> None:
    lines = page(card, SMALL, Example("How many?", "SELECT 1;")).splitlines()
    assert "base_model: SmolLM2-10L-Instruct" in lines
    assert "    python -m tests.zoo train sql --base small" in lines


def test_write_makes_what_the_catalogue_reads(card: Card, tmp_path: Path) -> None:
    write(card, LARGE, [Example("How many?", "SELECT 'ü';")], tmp_path)
    assert json.loads((tmp_path / "card.json").read_text())["accuracy"]["adapter"] == 90
    assert json.loads((tmp_path / "examples.jsonl").read_text("utf-8")) == {
        "prompt": "How many?",
        "expected": "SELECT 'ü';",
    }


COMMITTED = [(LARGE, adapter) for adapter in demo_adapters()] + [(SMALL, adapter) for adapter in small_adapters()]


@pytest.mark.parametrize(
    ("base", "adapter"), COMMITTED, ids=[f"{adapter.folder.parts[-3]}-{adapter.name}" for _, adapter in COMMITTED]
)
def test_committed_adapter_is_of_todays_recipe(base: Base, adapter: DemoAdapter) -> None:
    fields = json.loads((adapter.folder / "card.json").read_text())
    accuracy = Accuracy(**fields.pop("accuracy"))
    card = Card(**{**fields, "targets": tuple(fields["targets"])}, accuracy=accuracy)
    task, recipe = TASKS[adapter.name], base.recipes[adapter.name]
    training, held_out = task.split(recipe.examples)
    told = json.dumps(Card.of(task, recipe, len(training), card.seconds, accuracy).fields())
    assert told == json.dumps(card.fields())
    assert accuracy.prompts == HELD_OUT
    assert {Example(*example) for example in adapter.examples} <= set(held_out)
    assert (adapter.folder / "README.md").read_text("utf-8") == page(card, base, Example(*adapter.examples[0]))
