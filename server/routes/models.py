"""GET /v1/models: the base model and the adapters, as OpenAI's clients list and retrieve them."""

from contextlib import suppress
from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from loraloom.adapters.errors import DamagedBlob, InvalidAdapter
from loraloom.adapters.names import Selection, parse, parse_adapter
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.access.view import View
from loraloom.server.errors import RankTooHigh
from loraloom.server.gate.gate import Gate
from loraloom.server.routes.gated import Gated, GatedRoute, Seen
from loraloom.server.routes.listing import passing_over

router = APIRouter(route_class=GatedRoute, tags=["OpenAI"])


class Model(BaseModel, frozen=True):
    """One model, in OpenAI's shape, with vLLM's further fields.

    Attributes:
        id: what requests put into `model`.
        root: what that is right now: the base's name, or the adapter's version.
        parent: of an adapter, the model that it was trained on.
        applied: of an adapter on a proxy-tuned server, "proxy" if it acts through the small model, or "directly".
        alpha: the strength with which the large model is steered where a request says none, if it is.
    """

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "loraloom"
    root: str
    parent: str | None = None
    max_model_len: int | None = None
    applied: Literal["directly", "proxy"] | None = None
    alpha: float | None = None


class ModelList(BaseModel, frozen=True):
    """A list of models."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
def models(gate: Gated, seen: Seen) -> ModelList:
    """The base model, then every adapter that this server can serve and the key sees, by name."""
    return ModelList(data=[_base(gate), *_adapters(gate, seen)])


@router.get("/v1/models/{name:path}")
def model(name: str, gate: Gated, seen: Seen) -> Model:
    """One model: the base, or any adapter, version or tag, with a proxy strength or without."""
    if name == gate.base.name:
        return _base(gate)
    selection = parse(name)
    if selection.alpha is not None:
        return _with_strength(name, selection, gate, seen)
    return _card(name, gate.selector.resolve(parse_adapter(name), seen), gate)


def _with_strength(name: str, selection: Selection, gate: Gate, seen: View) -> Model:
    """Refused as a request for it would be."""
    adapter = parse_adapter(str(selection.target))
    choice = gate.selector.settle(selection, seen)
    base = str(adapter) == gate.base.name
    card = _base(gate) if base else _card(name, gate.selector.resolve(adapter, seen), gate)
    return card.model_copy(update={"id": name, "root": choice.model, "alpha": selection.alpha})


def _base(gate: Gate) -> Model:
    return Model(id=gate.base.name, root=gate.base.name, max_model_len=gate.engine.max_model_len)


def _adapters(gate: Gate, seen: View) -> list[Model]:
    cards = []
    for name in seen.names():
        # A request for what is left out gets the reason.
        with passing_over(name), suppress(DamagedBlob, InvalidAdapter, RankTooHigh):
            cards.append(_card(name, gate.selector.resolve(parse_adapter(name), seen), gate))
    return cards


def _card(name: str, record: VersionRecord, gate: Gate) -> Model:
    created = int(datetime.fromisoformat(record.created).timestamp())
    card = Model(id=name, root=record.canonical, parent=gate.base.owner(record).name, created=created)
    if len(gate.base.all) == 1:
        return card
    how = gate.selector.application(record)
    applied: Literal["directly", "proxy"] = "proxy" if how.by_proxy else "directly"
    return card.model_copy(update={"root": how.model, "applied": applied, "alpha": how.alpha})
