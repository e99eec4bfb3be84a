"""How a mixture that a request asks for is built: from verified ingredients, within the server's limits."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from loraloom.adapters.errors import InvalidMixture, MixtureRankTooHigh
from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.adapters.mixtures.mix import Limit, Outcome, mix
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.store.disk import reporting
from loraloom.server.errors import RankTooHigh


class Blobs(Protocol):
    """Where the ingredients' bytes come from; every call may block."""

    def acquire(self, digest: str) -> Path:
        """A directory with an adapter's verified normal form, kept until `release`."""

    def release(self, digest: str) -> None:
        """The directory is no longer needed."""


Write: TypeAlias = Callable[[Recipe, Sequence[tuple[float, Path]], Path, Limit | None], Outcome]
"""Writes a recipe's adapter to a folder, from the weight and the folder of each ingredient."""


def write_mixture(recipe: Recipe, sources: Sequence[tuple[float, Path]], out: Path, limit: Limit | None) -> Outcome:
    """Write a mixture as it is: a `Write`; raises as `mix` does."""
    return mix(recipe.method, sources, out, limit=limit)


@dataclass(frozen=True)
class Builder:
    """Builds mixtures.

    Attributes:
        blobs: where the ingredients come from.
        limit: of the rank, and whether larger ones are truncated.
        largest: bytes of all ingredients of one mixture together: about three times as much memory is taken.
        write: what is made of them.
    """

    blobs: Blobs
    limit: Limit
    largest: int
    write: Write = write_mixture

    def build(self, recipe: Recipe, folder: Path) -> Outcome:
        """Write a mixture to a folder, which shows up when it is complete; blocks.

        Raises:
            MixtureRankTooHigh, InvalidMixture: it cannot be built in this way, or is too large.
            DamagedBlob, StoreError: an ingredient cannot be read, or the mixture not be written.
        """
        new = folder.with_suffix(".new")
        with reporting(f"the cache {folder.parent}"), self._sources(recipe) as sources:
            self._check_size(sources)
            for left_over in (new, folder):
                shutil.rmtree(left_over, ignore_errors=True)
            new.mkdir(parents=True)
            try:
                _compute_alone()
                outcome = self.write(recipe, sources, new, self.limit)
                os.rename(new, folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return outcome

    @contextmanager
    def _sources(self, recipe: Recipe) -> Iterator[list[tuple[float, Path]]]:
        """The weight of each ingredient, and its directory."""
        with ExitStack() as stack:
            sources = []
            for each in recipe.ingredients:
                sources.append((each.weight, self.blobs.acquire(each.version.digest)))
                stack.callback(self.blobs.release, each.version.digest)
            yield sources

    def _check_size(self, sources: list[tuple[float, Path]]) -> None:
        size = sum((folder / WEIGHTS_FILE).stat().st_size for _, folder in sources)
        if size > self.largest:
            raise InvalidMixture(
                f"the adapters of this mixture have {size:,} bytes together, and this server mixes up to "
                f"{self.largest:,} (`mixture_cache_bytes`): mix fewer, or publish it with `loraloom adapters mix`"
            )


def refusal(recipe: Recipe, error: InvalidMixture) -> InvalidMixture | RankTooHigh:
    """What a client is told of a mixture that cannot be built."""
    if not isinstance(error, MixtureRankTooHigh):
        return InvalidMixture(str(error))
    ranks = " + ".join(map(str, recipe.ranks))
    return RankTooHigh(
        f"the mixture has rank {error.rank} (its adapters: {ranks}); this server serves up to {error.limit}. Truncate "
        f"it with the method svd(rank={error.limit}), as in svd(rank={error.limit}):"
        f"{recipe.canonical.rpartition(':')[2][:200]}, or start the server with a larger --max-lora-rank",
        param="model",
    )


def _compute_alone() -> None:
    """Leave the other processors to the engine: this thread computes without helpers."""
    import torch

    torch.set_num_threads(1)
