"""/v1/mixtures: build a mixture ahead of requests, and publish it under a name."""

import contextlib
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from loraloom.adapters.mixtures.mix import Limit, Outcome
from loraloom.adapters.mixtures.publication import publish_mixture
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.names import Selection, selection_from_json
from loraloom.adapters.store.records import Published
from loraloom.server.access.view import View
from loraloom.server.errors import InvalidBody
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.selection import METHODS
from loraloom.server.routes.gated import Gated, GatedRoute, Seen
from loraloom.server.routes.json_body import received
from loraloom.server.routes.publication import check_publishable
from loraloom.server.routes.versions import Version, announced

router = APIRouter(prefix="/v1/mixtures", route_class=GatedRoute, tags=["LoraLoom"])


class Wanted(BaseModel, frozen=True, extra="forbid"):
    """A mixture to build.

    Attributes:
        adapter: what to mix, as in requests: `"0.6*sql@4+0.4*date"`, or `{"mix": {"sql@4": 0.6, "date": 0.4}}`.
        name: publish it under this name.
        tag: a tag to move to the new version, besides `latest`.
        rank: truncate it to this rank before it is published.
        allow_noop: publish it also if it changes nothing.
    """

    adapter: str | Mapping[str, Any]
    name: str | None = None
    tag: str | None = None
    rank: int | None = Field(None, ge=1)
    allow_noop: bool = False


class Built(BaseModel, frozen=True):
    """A mixture that is there now.

    Attributes:
        model: what requests put into `model` to get exactly this.
        rank: the largest rank of its modules.
        error: Frobenius norm of what truncation left out, relative to the whole; 0 where nothing was.
        version: the new version, where it was published.
    """

    model: str
    rank: int
    error: float
    version: Version | None = None


@router.post("")
async def build(request: Request, response: Response, gate: Gated, seen: Seen) -> Built:
    """Build a mixture; 201 if that published a new version, 200 otherwise."""
    wanted = await received(request, Wanted, "an object with `adapter`, and at will `name`")
    selection = selection_from_json(wanted.adapter)
    if wanted.name is None:
        return await _ahead(selection, wanted, gate, seen)
    if selection.alpha is not None:
        raise InvalidBody(
            "a published mixture has no proxy strength (~): give it where the mixture is used", param="adapter"
        )
    check_publishable(gate, seen, wanted.name)
    published, outcome = await gate.work.do(seen.access.key, _publish, selection, wanted.name, wanted, gate, seen)
    response.status_code = 201 if published.created else 200
    return Built(
        model=published.version.canonical,
        rank=outcome.rank,
        error=outcome.error,
        version=await announced(published, gate),
    )


async def _ahead(selection: Selection, wanted: Wanted, gate: Gate, seen: View) -> Built:
    """Build it in the cache of mixtures, and let the engine load it if there is a free place."""
    method = selection.mixture.method.name
    if method not in METHODS or wanted.tag is not None or wanted.rank is not None:
        needing = "`tag` and `rank` are" if method in METHODS else f"the method {method} is"
        raise InvalidBody(f"{needing} for mixtures that are published: give a `name`", param="name")
    choice = await gate.looks.take(gate.selector.settle, selection, seen)
    if not isinstance(choice.content, Recipe):
        raise InvalidBody(f"this mixture is {choice.model!r}: there is nothing to build", param="adapter")
    async with gate.mixtures.kept(choice.content, gate.building.taken(seen.access.key)) as outcome:
        with contextlib.suppress(Exception):  # whoever asks for it is told why
            await gate.leases.fill(choice.model, choice.content)
    return Built(model=choice.model, rank=outcome.rank, error=outcome.error)


def _publish(selection: Selection, name: str, wanted: Wanted, gate: Gate, seen: View) -> tuple[Published, Outcome]:
    seen.check_free(name, wanted.tag)
    recipe = gate.selector.recipe(selection.mixture, seen)
    if not recipe.ingredients:
        raise InvalidBody("all weights of this mixture are zero: it is the base model", param="adapter")
    owners = {gate.base.owner(each.version).name for each in recipe.ingredients}
    if len(owners) > 1:
        raise InvalidBody(
            f"these adapters are of different models, {' and '.join(sorted(owners))}: a request can mix them, but one "
            "published adapter is of one model",
            param="adapter",
        )
    base = gate.base.named(*owners)
    with seen.publishing(name):
        return publish_mixture(
            gate.store,
            recipe,
            name,
            compute=gate.offline.mix,
            limit=None if wanted.rank is None else Limit(wanted.rank, truncate=True),
            tag=wanted.tag,
            base=base.fingerprint,
            base_name=base.name,
            allow_noop=wanted.allow_noop,
            by=seen.access.key,
            scratch=gate.scratch.folder,
        )
