"""`loraloom adapters mix`: a mixture of stored adapters, published as an adapter of its own."""

import argparse
from collections.abc import Sequence

from loraloom.adapters.base import BaseFingerprint, find_fingerprint
from loraloom.adapters.errors import BaseMismatch, InvalidBase, InvalidMixture, InvalidName
from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import Mixture, check_name, parse
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.cli.options import configured, user
from loraloom.server.store import open_store


def mix(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Compute a mixture and publish it."""
    from loraloom.adapters.mixtures.publication import publish_mixture

    store = open_store(configured(options).settings, create=False)
    name = check_name(options.name)
    recipe = settled(_mixture(options.mixture), store.resolve)
    if not recipe.ingredients:
        raise InvalidMixture("all weights of this mixture are zero: it would change nothing")
    base, base_name = _base(recipe, options.base)
    published, outcome = publish_mixture(
        store,
        recipe,
        name,
        limit=None if options.rank is None else Limit(options.rank, truncate=True),
        tag=options.tag,
        base=base,
        base_name=base_name,
        allow_noop=options.allow_noop,
        by=user(),
    )
    record = published.version
    print(f"{'mixed' if published.created else 'there already:'} {record.canonical}  sha256:{record.digest[:12]}")
    print(f"{recipe.canonical}: rank {outcome.rank}, relative error of truncation {outcome.error:.3g}")
    return 0


def _mixture(text: str) -> Mixture:
    selection = parse(text)
    if selection.alpha is not None:
        raise InvalidName(text, text.index("~"), "a mixture has no proxy strength: give it where the mixture is used")
    return selection.mixture


def _base(recipe: Recipe, given: str | None) -> tuple[BaseFingerprint | None, str | None]:
    """The base that all ingredients were published for, so far as it can be found, and its name."""
    versions = [each.version for each in recipe.ingredients]
    bound = _one_base(versions)
    base_name = given or next((version.base_name for version in versions if version.base_name), None)
    base = find_fingerprint(base_name) if base_name else None
    if given and base is None:
        raise InvalidBase(f"there is no base model {given!r}: give its directory or its Hugging Face id")
    if base is not None and bound is not None and base.digest != bound:
        if given:
            raise BaseMismatch(f"{versions[0].canonical} was published for another base than {given!r}")
        base = None  # another model lies at this path now
    return base, base_name


def _one_base(versions: Sequence[VersionRecord]) -> str | None:
    bound = {version.base: version for version in versions if version.base is not None}
    if len(bound) > 1:
        names = " and ".join(f"{version.canonical} ({version.base_name})" for version in bound.values())
        raise BaseMismatch(f"{names} were published for different bases: only adapters of one base can be mixed")
    return next(iter(bound), None)
