"""From what a request's body asks for to one immutable adapter: a version, or a mixture of versions."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Protocol

from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.methods import EXACT
from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.mixtures.recipe import Ingredient, Recipe, settled
from loraloom.adapters.names import Adapter, Mixture, Selection, parse, selection_from_json
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.access.access import ANYONE
from loraloom.server.access.view import View
from loraloom.server.errors import InvalidBody, NotServed, RankTooHigh
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.looks import Looks
from loraloom.server.gate.lorax import merged_adapters
from loraloom.server.gate.placement import Application, OnTheBase, Placement
from loraloom.server.gate.recent import Recent

METHODS = ("exact", "lorahub", "svd")
"""How a request may mix; the others work on whole matrices and take too long."""

MOST_RANKS = 1024
"""What the ranks of a mixture's adapters may add up to: where it is truncated, the time grows with their cube, and for
this many a model of 7B takes minutes."""


class Fits(Protocol):
    """Whether a stored adapter fits the served base model."""

    def check(self, record: VersionRecord) -> None:
        """Raise `BaseMismatch` if it does not."""


class Selector:
    """Resolves selections against a store, for one served base model.

    Attributes:
        max_rank: the largest rank that is served.
        everything: the store as this server itself sees it.
    """

    def __init__(
        self,
        store: Store,
        base_names: Collection[str],
        fits: Fits,
        limit: Limit,
        max_mixture_terms: int = 32,
        placement: Placement | None = None,
        looks: Looks | None = None,
        recent: Recent | None = None,
    ) -> None:
        """
        Args:
            store: where the adapters are.
            base_names: what selects the plain base model; the first is what responses say.
            fits: whether an adapter fits the base model.
            limit: the largest rank that is served, and whether mixtures are truncated to it.
            max_mixture_terms: adapters in one mixture.
            placement: how adapters are put onto what is served; by default onto the base model.
            looks: takes looks into the store.
            recent: what they found a moment ago.
        """
        self._looks = looks or Looks(f"the store {store.url}")
        self._recent = recent or Recent(lambda: store.changes)
        self.everything = View(store, lambda: ANYONE)
        self._base_names = tuple(base_names)
        self._fits = fits
        self._limit = limit
        self.max_rank = limit.rank
        self._max_terms = max_mixture_terms
        self._placement = placement or OnTheBase(self._base_names[0])

    async def choose(self, body: Mapping[str, Any], view: View) -> Choice:
        """What the body selects among what is seen, resolved to what can be served; see `Recent` for how fresh that is.

        Raises:
            InvalidBody: fields of the wrong type, or that contradict each other.
            InvalidName: a selection that does not follow the grammar.
            InvalidMixture: a mixture with too many terms or too large weights.
            NotServed: a selection that this server does not serve.
            InvalidAlpha: a proxy strength out of range, or with nothing to act on.
            AdapterNotFound: no such adapter, version or tag.
            BaseMismatch: an adapter of another base model.
            RankTooHigh: its rank exceeds the server's limit.
        """
        wanted = self._wanted(body)
        if isinstance(wanted, Choice):
            return wanted
        return await self._recent.find((wanted, view.access), partial(self._looks.take, self.settle, wanted, view))

    def settle_own(self, selection: Selection) -> Choice:
        """As `settle`, for this server's own needs, which no key limits."""
        return self.settle(selection, self.everything)

    def settle(self, selection: Selection, view: View) -> Choice:
        """What a selection stands for now, if this server can serve it; may block, and raises as `choose` does.

        (The rank of a mixture is known only when it is built.)
        """
        if selection.alpha is not None and str(selection.target) in self._base_names:
            return self._placement.place(Recipe(EXACT, ()), selection.alpha)
        if isinstance(selection.target, Adapter):
            record = self.resolve(selection.target, view)
            return self._placement.place(Recipe(EXACT, (Ingredient(1.0, record),)), selection.alpha)
        if selection.target.method.name not in METHODS:
            raise NotServed(
                f"{selection.target.method.name} takes too long for a request, and {', '.join(METHODS)} do not: "
                "publish the mixture with POST /v1/mixtures or `loraloom adapters mix`, and ask for it by its name",
                param="model",
            )
        recipe = self.recipe(selection.target, view)
        if recipe.single is not None:
            self._check_rank(recipe.single)
        return self._placement.place(recipe, selection.alpha)

    def application(self, record: VersionRecord) -> Application:
        """How a version that this server can serve acts when a request names it and no strength."""
        return self._placement.application(record)

    def resolve(self, adapter: Adapter, view: View) -> VersionRecord:
        """The version that an adapter stands for now, if it is seen and this server can serve it.

        Raises:
            AdapterNotFound, BaseMismatch, RankTooHigh: as `choose` does.
        """
        record = self._version(adapter, view)
        self._check_rank(record)
        return record

    def recipe(self, mixture: Mixture, view: View) -> Recipe:
        """What a mixture stands for now, of what is seen, whatever its rank; where all weights are zero it is empty.

        Raises:
            InvalidMixture, AdapterNotFound, BaseMismatch: as `choose` does.
        """
        if len(mixture.terms) > self._max_terms:
            raise InvalidMixture(
                f"the mixture has {len(mixture.terms)} terms, and this server takes up to {self._max_terms} "
                "(`max_mixture_terms`)"
            )
        recipe = settled(mixture, lambda adapter: self._version(adapter, view))
        _check_ranks(recipe)
        return recipe

    def check_not_base(self, name: str) -> None:
        """Refuse to publish under a name that selects the base model; raises `InvalidBody`."""
        if name in self._base_names:
            raise InvalidBody(f"{name!r} is a name of the base model here: choose another", param="name")

    def _version(self, adapter: Adapter, view: View) -> VersionRecord:
        record = view.resolve(adapter)
        self._fits.check(record)
        return record

    def _check_rank(self, record: VersionRecord) -> None:
        if record.rank > self._limit.rank:
            raise RankTooHigh(
                f"adapter {record.canonical!r} has rank {record.rank}; this server serves up to {self._limit.rank}. "
                f"Start it with a larger --max-lora-rank, or ask for svd(rank={self._limit.rank}):{record.canonical}, "
                "which truncates it",
                param="model",
            )

    def _wanted(self, body: Mapping[str, Any]) -> Selection | Choice:
        """The selection, or the base model."""
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise InvalidBody(f"`model` must be a string, not {type(model).__name__}", param="model")
        field = _selecting_field(body)
        names_base = not model or model in self._base_names
        if field is None:
            return Choice(model or self._base_names[0]) if names_base else parse(str(model))
        if not names_base:
            raise InvalidBody(
                f"`model` and `{field}` both choose an adapter: keep one, or set `model` to {self._base_names[0]!r}",
                param=field,
            )
        return _from_field(field, body[field])


def _check_ranks(recipe: Recipe) -> None:
    ranks = sum(recipe.ranks)
    if ranks > MOST_RANKS:
        raise InvalidMixture(
            f"the ranks of the adapters of this mixture add up to {ranks:,}, and this server mixes up to "
            f"{MOST_RANKS:,}: mix fewer or smaller ones, or publish it with `loraloom adapters mix`"
        )


def _selecting_field(body: Mapping[str, Any]) -> str | None:
    given = [name for name in ("adapter", "adapter_id", "merged_adapters") if body.get(name) is not None]
    if len(given) > 1:
        raise InvalidBody(f"`{given[0]}` and `{given[1]}` both choose an adapter: keep one", param=given[1])
    return given[0] if given else None


def _from_field(field: str, value: object) -> Selection:
    if field == "merged_adapters":
        return Selection(merged_adapters(value))
    if field == "adapter_id" and not isinstance(value, str):
        raise InvalidBody(f"`adapter_id` must be a string, not {type(value).__name__}", param=field)
    return selection_from_json(value)
