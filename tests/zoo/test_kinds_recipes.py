"""Every recipe makes a configuration that peft takes, of a kind of its own."""

import pytest
from peft import PeftConfig

from .kinds_recipes import FULL, RECIPES


@pytest.mark.parametrize("kind", sorted(RECIPES.keys() - {FULL}))
def test_a_recipe_makes_configurations_that_share_nothing(kind: str) -> None:
    first, second = RECIPES[kind].config(), RECIPES[kind].config()
    assert isinstance(first, PeftConfig)
    assert first.target_modules == second.target_modules
    first.target_modules.clear()
    assert second.target_modules


def test_kinds_differ() -> None:
    made = [(recipe.make, str(dict(recipe.fields))) for recipe in RECIPES.values()]
    assert len(set(made)) == len(made)
    assert [recipe.kind for recipe in RECIPES.values()] == list(RECIPES)


def test_the_whole_model_has_no_configuration() -> None:
    with pytest.raises(AssertionError):
        RECIPES[FULL].config()
