"""Publishing a mixture: computed once, brought to its true rank, and stored with where it came from."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.mixtures.mix import Limit, Outcome, mix
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import Published


def publish_mixture(
    store: Store,
    recipe: Recipe,
    name: str,
    *,
    limit: Limit | None = None,
    tag: str | None = None,
    base: BaseFingerprint | None = None,
    base_name: str | None = None,
    allow_noop: bool = False,
    by: str | None = None,
) -> tuple[Published, Outcome]:
    """Store a mixture as the next version of `name`.

    Args:
        store: where its ingredients are, and where it goes.
        recipe: at least one ingredient.
        limit: the largest rank; None is its true rank, whatever that is.
        tag, base, base_name, allow_noop, by: as for `Store.publish`.

    Raises:
        InvalidMixture, MixtureRankTooHigh: as `mix` does.
        DamagedBlob: an ingredient is damaged.
        InvalidName, NameTaken, InvalidAdapter, StoreError: as `Store.publish` does.
    """
    with TemporaryDirectory(prefix="loraloom-mixture-") as folder:
        outcome = _mix(store, recipe, Path(folder), limit)
        published = store.publish(
            Path(folder),
            name,
            tag=tag,
            base=base,
            base_name=base_name,
            allow_noop=allow_noop,
            by=by,
            provenance={**recipe.provenance(), "rank": outcome.rank, "error": outcome.error},
        )
    return published, outcome


def _mix(store: Store, recipe: Recipe, out: Path, limit: Limit | None) -> Outcome:
    with ExitStack() as leases:
        sources = []
        for each in recipe.ingredients:
            store.check(each.version.digest)
            sources.append((each.weight, leases.enter_context(store.leased(each.version.digest))))
        return mix(recipe.method, sources, out, limit=limit, compact=True)
