"""GET /v1/models: the base model and the adapters, as OpenAI's clients list and retrieve them."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from loraloom.adapters.errors import AdapterNotFound, DamagedBlob, InvalidAdapter
from loraloom.adapters.names import parse_adapter
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.access.view import View
from loraloom.server.errors import RankTooHigh
from loraloom.server.gate.gate import Gate
from loraloom.server.routes.gated import Gated, GatedRoute, Seen

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
    return _card(name, gate.selector.resolve(parse_adapter(name.partition("~")[0]), seen), gate)


def _base(gate: Gate) -> Model:
    return Model(id=gate.base.name, root=gate.base.name, max_model_len=gate.engine.max_model_len)


def _adapters(gate: Gate, seen: View) -> list[Model]:
    cards = []
    for name in seen.names():
        try:
            record = gate.selector.resolve(parse_adapter(name), seen)
        except (AdapterNotFound, DamagedBlob, InvalidAdapter, RankTooHigh):  # a request for it gets the reason
            continue
        cards.append(_card(name, record, gate))
    return cards


def _card(name: str, record: VersionRecord, gate: Gate) -> Model:
    created = int(datetime.fromisoformat(record.created).timestamp())
    card = Model(id=name, root=record.canonical, parent=gate.base.owner(record).name, created=created)
    if len(gate.base.all) == 1:
        return card
    how = gate.selector.application(record)
    applied: Literal["directly", "proxy"] = "proxy" if how.by_proxy else "directly"
    return card.model_copy(update={"root": how.model, "applied": applied, "alpha": how.alpha})
