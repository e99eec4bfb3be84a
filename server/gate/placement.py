"""How adapters, once resolved, are put onto what the server runs: the last step of selecting."""

from dataclasses import dataclass
from typing import Protocol

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.scanner import MAX_TEXT
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.errors import NotServed
from loraloom.server.gate.exchange import Choice


@dataclass(frozen=True, slots=True)
class Application:
    """How an adapter acts when a request names it and no strength.

    Attributes:
        model: the name under which the engine holds it.
        by_proxy: through the small model, and not as weights of the served model.
        alpha: the strength with which the large model is steered then, if it is.
    """

    model: str
    by_proxy: bool = False
    alpha: float | None = None


class Placement(Protocol):
    """Turns versions and mixtures of versions into what the engine loads."""

    def place(self, recipe: Recipe, alpha: float | None) -> Choice:
        """What a selection stands for.

        Args:
            recipe: the adapters; none is the base model.
            alpha: the strength of proxy-tuning that the request says, if it does.

        Raises:
            NotServed, InvalidAlpha: a strength that cannot be had here.
            InvalidMixture: the name is too long.
        """

    def application(self, record: VersionRecord) -> Application:
        """How one version acts by itself."""


@dataclass(frozen=True)
class OnTheBase:
    """Adapters of the one served model are loaded as they are stored.

    Attributes:
        base: the name of the plain base model.
    """

    base: str

    def place(self, recipe: Recipe, alpha: float | None) -> Choice:
        """See `Placement`."""
        if alpha is not None:
            raise NotServed(
                "a proxy strength (~) is not available on this server: it is not proxy-tuned. Start it with "
                "--proxy-small, or leave the ~ out",
                param="model",
            )
        if not recipe.ingredients:
            return Choice(self.base)
        if recipe.single is not None:
            return Choice(recipe.single.canonical, recipe.single.digest)
        check_length(recipe)
        return Choice(recipe.canonical, recipe)

    def application(self, record: VersionRecord) -> Application:
        """See `Placement`."""
        return Application(record.canonical)


def check_length(recipe: Recipe) -> None:
    """Raise `InvalidMixture` where the canonical name is longer than a name that is asked for may be."""
    if len(recipe.canonical) > MAX_TEXT:
        raise InvalidMixture(f"the mixture's name, with versions, has more than {MAX_TEXT} characters: mix fewer")
