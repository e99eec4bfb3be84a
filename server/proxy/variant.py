"""Variants: adapters as the composite model loads them, with their strength."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from loraloom.adapters.arithmetic.factors import Factors, Mixed
from loraloom.adapters.mixtures.mix import Limit, Outcome, mixed_modules, relative_error, write_mixed
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.scanner import number_text
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.proxy import strength

LARGE, EXPERT = "large.", "expert."
"""What the paths of modules begin with in the composite model."""


@dataclass(frozen=True)
class Variant(Recipe):
    """Adapters put onto the composite model.

    Attributes:
        steering: canonical names of the versions that were trained on the small model; the others are the large one's.
        alpha: the strength of the small models' difference; None carries none, and leaves it as it is without adapters.
        base: the name of the plain large model, for a variant of no adapter.
    """

    steering: frozenset[str]
    alpha: float | None
    base: str

    @cached_property
    def canonical(self) -> str:
        """The name that selects exactly this: `sql@4~0.7`, or `sql@4` of an adapter that is applied directly."""
        alone = super().single
        text = alone.canonical if alone else super().canonical if self.ingredients else self.base
        return text if self.alpha is None else f"{text}~{number_text(self.alpha)}"

    @cached_property
    def key(self) -> str:
        """64 hex digits: the same for variants that make the same, under whatever names."""
        parts = sorted(
            (each.version.digest, each.weight, each.version.canonical in self.steering) for each in self.ingredients
        )
        text = json.dumps([str(self.method), parts, self.alpha])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def single(self) -> VersionRecord | None:
        """None: every variant differs from what is stored."""
        return None


def write_variant(variant: Recipe, sources: Sequence[tuple[float, Path]], out: Path, limit: Limit | None) -> Outcome:
    """Write a variant to the folder `out`, as a normal form whose modules are the composite model's.

    Args:
        variant: what to write.
        sources: the weight of each ingredient and its folder, in their order.
        out, limit: as of `mix`.

    Raises:
        InvalidMixture, MixtureRankTooHigh, DamagedBlob: as `mix` does.
    """
    assert isinstance(variant, Variant)
    modules: dict[str, Mixed] = {}
    task_types = set()
    for prefix, steers in ((LARGE, False), (EXPERT, True)):
        own = [
            source
            for each, source in zip(variant.ingredients, sources, strict=True)
            if (each.version.canonical in variant.steering) == steers
        ]
        if own:
            mixed = mixed_modules(variant.method, own, limit=limit)
            modules |= {prefix + path: each for path, each in mixed.modules.items()}
            task_types.add(mixed.task_type)
    error = relative_error(modules.values()) if modules else 0.0
    if variant.alpha is not None:
        modules[strength.PATH] = Mixed(_strength(variant.alpha))
    outcome = write_mixed(modules, out, task_types.pop() if len(task_types) == 1 else None)
    return replace(outcome, error=error)  # of the adapters: the strength is none


def _strength(alpha: float) -> Factors:
    """The update of `proxy_alpha`, of rank 1, that makes it say alpha."""
    import torch

    said = torch.tensor((*strength.split(alpha), strength.GIVEN), dtype=torch.bfloat16)
    return Factors(torch.ones(1, 1, dtype=torch.bfloat16), said.reshape(3, 1))
