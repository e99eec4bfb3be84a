"""From what a request's body asks for to one immutable version of an adapter."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from loraloom.adapters.names import Adapter, Selection, parse, selection_from_json
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.errors import InvalidBody, NotServed, RankTooHigh
from loraloom.server.gate.exchange import Choice

FIELDS = ("adapter", "adapter_id", "merged_adapters", "adapter_source")
"""Body fields that select, besides `model`: ours, and those of LoRAX."""


class Fits(Protocol):
    """Whether a stored adapter fits the served base model."""

    def check(self, record: VersionRecord) -> None:
        """Raise `BaseMismatch` if it does not."""


class Selector:
    """Resolves selections against a store, for one served base model."""

    def __init__(self, store: Store, base_names: Collection[str], fits: Fits, max_lora_rank: int) -> None:
        self._store = store
        self._base_names = tuple(base_names)
        self._fits = fits
        self._max_lora_rank = max_lora_rank

    async def choose(self, body: Mapping[str, Any]) -> Choice:
        """What the body selects, resolved to a version that can be served.

        Raises:
            InvalidBody: fields of the wrong type, or that contradict each other.
            InvalidName: a selection that does not follow the grammar.
            NotServed: a selection that this server does not serve.
            AdapterNotFound: no such adapter, version or tag.
            BaseMismatch: an adapter of another base model.
            RankTooHigh: its rank exceeds the server's limit.
        """
        wanted = self._wanted(body)
        if isinstance(wanted, str):
            return Choice(wanted)
        adapter = _adapter(wanted)
        record = self.resolve(adapter) if self._store.local else await asyncio.to_thread(self.resolve, adapter)
        return Choice(record.canonical, record)

    def _wanted(self, body: Mapping[str, Any]) -> Selection | str:
        """The selection, or the name of the base model."""
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise InvalidBody(f"`model` must be a string, not {type(model).__name__}", param="model")
        field = _selecting_field(body)
        names_base = not model or model in self._base_names
        if field is None:
            return (model or self._base_names[0]) if names_base else parse(str(model))
        if not names_base:
            raise InvalidBody(
                f"`model` and `{field}` both choose an adapter: keep one, or set `model` to {self._base_names[0]!r}",
                param=field,
            )
        return _from_field(field, body[field])

    def resolve(self, adapter: Adapter) -> VersionRecord:
        """The version that an adapter stands for now, if this server can serve it.

        Raises:
            AdapterNotFound, BaseMismatch, RankTooHigh: as `choose` does.
        """
        record = self._store.resolve(adapter)
        if record.rank > self._max_lora_rank:
            raise RankTooHigh(
                f"adapter {record.canonical!r} has rank {record.rank}; this server serves up to {self._max_lora_rank}. "
                f"Start it with a larger --max-lora-rank, or add the adapter with a smaller rank",
                param="model",
            )
        self._fits.check(record)
        return record


def rewritten(body: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """The body as the engine's server gets it: the canonical name, and no field of ours."""
    return {key: value for key, value in body.items() if key not in FIELDS} | {"model": choice.model}


def _selecting_field(body: Mapping[str, Any]) -> str | None:
    given = [name for name in ("adapter", "adapter_id", "merged_adapters") if body.get(name) is not None]
    if len(given) > 1:
        raise InvalidBody(f"`{given[0]}` and `{given[1]}` both choose an adapter: keep one", param=given[1])
    return given[0] if given else None


def _from_field(field: str, value: object) -> Selection:
    if field == "merged_adapters":
        raise NotServed("mixtures are not available on this server", param=field)
    if field == "adapter_id" and not isinstance(value, str):
        raise InvalidBody(f"`adapter_id` must be a string, not {type(value).__name__}", param=field)
    return selection_from_json(value)


def _adapter(selection: Selection) -> Adapter:
    if selection.alpha is not None:
        raise NotServed("a proxy strength (~) is not available on this server: it is not proxy-tuned", param="model")
    if not isinstance(selection.target, Adapter):
        raise NotServed("mixtures are not available on this server", param="model")
    return selection.target
