"""Recipes: mixtures of immutable versions, as they are made and named."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.methods import EXACT, Method
from loraloom.adapters.names import Adapter, Mixture
from loraloom.adapters.scanner import number_text
from loraloom.adapters.store.records import VersionRecord

MAX_WEIGHT = 100.0
"""The largest weight, of either sign: those that are learned or chosen lie within a few units of zero."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One version in a mixture, and its weight, which may be negative."""

    weight: float
    version: VersionRecord


@dataclass(frozen=True)
class Recipe:
    """A mixture whose content never changes, whatever happens to tags.

    Attributes:
        method: how the adapters are mixed.
        ingredients: different versions with weights that are not zero, the heaviest first; none is the zero update.
    """

    method: Method
    ingredients: tuple[Ingredient, ...]

    @cached_property
    def canonical(self) -> str:
        """The name that selects exactly this mixture, now and for ever: `0.6*sql@4+0.4*date@1`."""
        prefix = "" if self.method == EXACT else f"{self.method}:"
        return prefix + "+".join(f"{number_text(each.weight)}*{each.version.canonical}" for each in self.ingredients)

    @cached_property
    def key(self) -> str:
        """64 hex digits: the same for recipes that make the same, under whatever names."""
        parts = sorted((each.version.digest, each.weight) for each in self.ingredients)
        return hashlib.sha256(json.dumps([str(self.method), parts]).encode()).hexdigest()

    @property
    def single(self) -> VersionRecord | None:
        """The version that the mixture is, where it is nothing else: `1*sql`."""
        only = len(self.ingredients) == 1 and self.method == EXACT and self.ingredients[0].weight == 1
        return self.ingredients[0].version if only else None

    @property
    def ranks(self) -> list[int]:
        """The largest rank of each ingredient."""
        return [each.version.rank for each in self.ingredients]

    def uses(self, canonical: str) -> bool:
        """Whether a version is one of the ingredients."""
        return any(each.version.canonical == canonical for each in self.ingredients)

    def provenance(self) -> Mapping[str, object]:
        """What it consists of, as JSON can say it."""
        terms = [
            {"adapter": each.version.canonical, "digest": each.version.digest, "weight": each.weight}
            for each in self.ingredients
        ]
        return {"mixture": self.canonical, "method": str(self.method), "terms": terms}


def settled(mixture: Mixture, resolve: Callable[[Adapter], VersionRecord]) -> Recipe:
    """The recipe that a mixture stands for now: weights of one version are added up, and zero weights left out.

    Args:
        mixture: as it was asked for.
        resolve: the version that an adapter stands for now.

    Raises:
        InvalidMixture: a weight beyond `MAX_WEIGHT`.
        AdapterNotFound: from `resolve`.
    """
    weights: dict[str, float] = {}
    versions: dict[str, VersionRecord] = {}
    for term in mixture.terms:
        version = resolve(term.adapter)
        versions[version.canonical] = version
        weights[version.canonical] = weights.get(version.canonical, 0.0) + term.weight
    for name, weight in weights.items():
        if not abs(weight) <= MAX_WEIGHT:
            raise InvalidMixture(f"the weight of {name} is {weight:g}: give one from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
    names = sorted((name for name, weight in weights.items() if weight), key=lambda name: (-weights[name], name))
    return Recipe(mixture.method, tuple(Ingredient(weights[name], versions[name]) for name in names))
