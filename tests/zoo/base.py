"""The two models that adapters are trained on, and what goes with each: recipes, a folder, what counts as enough."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loraloom.demo.model import prepare
from loraloom.demo.small import NAME, prepare_small

from .recipe import RECIPES, SMALL_RECIPES, Recipe

_DEMO = Path(__file__).parents[2] / "deploy" / "demo"


@dataclass(frozen=True)
class Base:
    """A model to train adapters on.

    Attributes:
        name: what the adapters call it.
        words: of the command that trains an adapter, after the adapter's name.
        prepare: makes the model, unless it is there.
        recipes: by the tasks' names.
        adapters: where the trained ones lie.
        gain: points by which an adapter must beat the base, both without examples and with five, to be kept.
    """

    name: str
    words: str
    prepare: Callable[[], Path]
    recipes: dict[str, Recipe]
    adapters: Path
    gain: float


LARGE = Base("HuggingFaceTB/SmolLM2-135M-Instruct", "", prepare, RECIPES, _DEMO / "adapters", 30)
SMALL = Base(NAME, " --base small", prepare_small, SMALL_RECIPES, _DEMO / "small-model" / "adapters", 0)
BASES = {"large": LARGE, "small": SMALL}
