"""Publishing a mixture: computed once, brought to its true rank, and stored with where it came from."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Protocol

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.methods import Method
from loraloom.adapters.mixtures.mix import Limit, Outcome, mix
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import Published


class Mix(Protocol):
    """Computes a mixture; `mix_compact` does it here."""

    def __call__(
        self, method: Method, sources: Sequence[tuple[float, Path]], out: Path, limit: Limit | None
    ) -> Outcome: ...


def mix_compact(method: Method, sources: Sequence[tuple[float, Path]], out: Path, limit: Limit | None) -> Outcome:
    """`mix`, to the true rank of every module."""
    return mix(method, sources, out, limit=limit, compact=True)


def publish_mixture(
    store: Store,
    recipe: Recipe,
    name: str,
    *,
    compute: Mix = mix_compact,
    limit: Limit | None = None,
    tag: str | None = None,
    base: BaseFingerprint | None = None,
    base_name: str | None = None,
    allow_noop: bool = False,
    by: str | None = None,
    scratch: Path | None = None,
    provenance: Mapping[str, object] = MappingProxyType({}),
) -> tuple[Published, Outcome]:
    """Store a mixture as the next version of `name`.

    Args:
        store: where its ingredients are, and where it goes.
        recipe: at least one ingredient.
        compute: what computes it.
        limit: the largest rank; None is its true rank, whatever that is.
        tag, base, base_name, allow_noop, by: as for `Store.publish`.
        scratch: where there is space for it meanwhile; by default where the system has temporary files.
        provenance: more of where it comes from.

    Raises:
        InvalidMixture, MixtureRankTooHigh: as `mix` does.
        DamagedBlob: an ingredient is damaged.
        InvalidName, NameTaken, InvalidAdapter, StoreError: as `Store.publish` does.
    """
    store.check_free(name, tag)
    with TemporaryDirectory(prefix="loraloom-mixture-", dir=scratch) as folder:
        outcome = _mix(store, recipe, Path(folder), limit, compute)
        published = store.publish(
            Path(folder),
            name,
            tag=tag,
            base=base,
            base_name=base_name,
            allow_noop=allow_noop,
            by=by,
            provenance={**recipe.provenance(), **provenance, "rank": outcome.rank, "error": outcome.error},
        )
    return published, outcome


def _mix(store: Store, recipe: Recipe, out: Path, limit: Limit | None, compute: Mix) -> Outcome:
    with ExitStack() as leases:
        sources = []
        for each in recipe.ingredients:
            store.check(each.version.digest)
            sources.append((each.weight, leases.enter_context(store.leased(each.version.digest))))
        return compute(recipe.method, sources, out, limit)
