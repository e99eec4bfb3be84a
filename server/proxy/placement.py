"""Placing adapters on a large model and the small one that steers it."""

from dataclasses import dataclass
from typing import Protocol

from loraloom.adapters.methods import EXACT
from loraloom.adapters.mixtures.recipe import Ingredient, Recipe
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.errors import InvalidAlpha
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.placement import Application, check_length
from loraloom.server.proxy.variant import Variant

DIGITS = 4
"""Of a strength, behind the point: what is nearer to another than that is the same, and made once."""


class Steers(Protocol):
    """Tells the small model's adapters from the large one's."""

    def steers(self, record: VersionRecord) -> bool:
        """Whether a version was trained on the small model; raises `BaseMismatch` if it fits neither."""


@dataclass(frozen=True)
class OnThePair:
    """Adapters of the small model steer the large one, with a strength; those of the large one are loaded into it.

    Attributes:
        base: the name of the plain large model.
        bases: tells whose an adapter is.
        alpha: the strength where a request says none.
        most: the largest strength, of either sign.
        own_expert: the expert is tuned already, and steers without any adapter too.
    """

    base: str
    bases: Steers
    alpha: float
    most: float
    own_expert: bool

    def place(self, recipe: Recipe, alpha: float | None) -> Choice:
        """See `Placement`."""
        alpha = alpha if alpha is None else round(alpha, DIGITS)
        if alpha is not None and not abs(alpha) <= self.most:
            raise InvalidAlpha(
                f"the proxy strength is {alpha:g}: give one from {-self.most:g} to {self.most:g} (`proxy_max_alpha`)"
            )
        if not recipe.ingredients and alpha is None:
            return Choice(self.base)
        variant = self._variant(recipe, alpha)
        check_length(variant)
        return Choice(variant.canonical, variant)

    def application(self, record: VersionRecord) -> Application:
        """See `Placement`."""
        variant = self._variant(Recipe(EXACT, (Ingredient(1.0, record),)), None)
        alpha = self.alpha if self.own_expert else variant.alpha
        return Application(variant.canonical, bool(variant.steering), alpha)

    def _variant(self, recipe: Recipe, alpha: float | None) -> Variant:
        versions = (each.version for each in recipe.ingredients)
        steering = frozenset(version.canonical for version in versions if self.bases.steers(version))
        if alpha is not None and not steering and not self.own_expert:
            raise InvalidAlpha(_nothing_to_steer(recipe))
        return Variant(
            method=recipe.method,
            ingredients=recipe.ingredients,
            steering=steering,
            alpha=alpha if alpha is not None or not steering else self.alpha,
            base=self.base,
        )


def _nothing_to_steer(recipe: Recipe) -> str:
    if not recipe.ingredients:
        return "a proxy strength (~) needs an adapter of the small model: name one before the ~, or leave the ~ out"
    return (
        f"{recipe.canonical} was trained on the large model and is applied to it directly: a proxy strength (~) has "
        "nothing to act on. Leave the ~ out, or give the adapter a weight, as in 0.7*NAME"
    )
