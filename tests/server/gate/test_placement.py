"""How adapters are put onto one base model."""

import pytest

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.methods import EXACT, Method
from loraloom.adapters.mixtures.recipe import Ingredient, Recipe
from loraloom.adapters.scanner import MAX_TEXT
from loraloom.server.errors import NotServed
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.placement import Application, OnTheBase
from tests.server.conftest import BASE, Publish

PLACEMENT = OnTheBase(BASE)


def test_no_adapter_is_the_base() -> None:
    assert PLACEMENT.place(Recipe(EXACT, ()), None) == Choice(BASE)


def test_one_adapter_is_loaded_as_it_is_stored(publish: Publish) -> None:
    record = publish("sql")
    assert PLACEMENT.place(Recipe(EXACT, (Ingredient(1.0, record),)), None) == Choice("sql@1", record.digest)
    assert PLACEMENT.application(record) == Application("sql@1", by_proxy=False, alpha=None)


@pytest.mark.parametrize(("method", "weight"), [(EXACT, 0.5), (Method("lorahub"), 1.0)])
def test_anything_else_is_built(publish: Publish, method: Method, weight: float) -> None:
    recipe = Recipe(method, (Ingredient(weight, publish("sql")),))
    assert PLACEMENT.place(recipe, None) == Choice(recipe.canonical, recipe)


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_there_is_nothing_that_a_strength_could_act_on(publish: Publish, alpha: float) -> None:
    for ingredients in ((), (Ingredient(1.0, publish("sql")),)):
        with pytest.raises(NotServed, match="it is not proxy-tuned. Start it with --proxy-small") as refusal:
            PLACEMENT.place(Recipe(EXACT, ingredients), alpha)
        assert refusal.value.param == "model"


def test_a_name_that_could_not_be_asked_for(publish: Publish) -> None:
    ingredient = Ingredient(0.5, publish("x" * 64))
    with pytest.raises(InvalidMixture, match=f"more than {MAX_TEXT} characters: mix fewer"):
        PLACEMENT.place(Recipe(EXACT, (ingredient,) * 60), None)
