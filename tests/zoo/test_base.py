"""Both models have recipes for known tasks, and folders where the catalogue looks."""

import json

import pytest

from loraloom.demo.catalog import DemoAdapter, demo_adapters, small_adapters

from .base import BASES, LARGE, SMALL, Base
from .tasks import TASKS


@pytest.mark.parametrize(("base", "adapters"), [(LARGE, demo_adapters()), (SMALL, small_adapters())])
def test_the_catalogue_reads_what_the_recipes_made(base: Base, adapters: tuple[DemoAdapter, ...]) -> None:
    assert {adapter.folder.parent.resolve() for adapter in adapters} == {base.adapters.resolve()}
    assert {adapter.name for adapter in adapters} == base.recipes.keys() <= TASKS.keys()
    configs = [json.loads((adapter.folder / "adapter_config.json").read_text()) for adapter in adapters]
    assert {config["base_model_name_or_path"] for config in configs} == {base.name}


def test_the_models_are_told_apart() -> None:
    assert list(BASES.values()) == [LARGE, SMALL]
    assert LARGE.name != SMALL.name
    assert (LARGE.words, SMALL.words) == ("", " --base small")
