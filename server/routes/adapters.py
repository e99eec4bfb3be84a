"""/v1/adapters: publish, look at, tag and remove adapters while the server runs."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError

from loraloom.adapters.convert.kinds import kind_of
from loraloom.adapters.convert.options import Options
from loraloom.adapters.manifest import read_manifest
from loraloom.adapters.names import check_name
from loraloom.adapters.sources import fetched
from loraloom.adapters.store.disk import reporting
from loraloom.adapters.store.facts import Fact
from loraloom.adapters.store.records import Published, VersionRecord
from loraloom.server.access.view import View
from loraloom.server.base import ServedBase
from loraloom.server.errors import InvalidBody, NotServed, WrongContentType
from loraloom.server.gate.gate import Gate, Tier
from loraloom.server.routes.gated import Gated, GatedRoute, Seen, first_problem
from loraloom.server.routes.upload import Publication, receive_upload

router = APIRouter(prefix="/v1/adapters", route_class=GatedRoute, tags=["LoraLoom"])

Residency: TypeAlias = Tier | Literal["disk"]


class Version(BaseModel, frozen=True):
    """One version of an adapter.

    Attributes:
        model: what requests put into `model` to get exactly this version.
        rank: largest rank of its modules.
        base: fingerprint of the base model it was published for; null where that was not known.
        facts: what was measured of it: its update's norms, the error of a conversion, its effect on a probe prompt.
        residency: `slot` when the engine computes with it, or did lately; `cpu` when it holds it in main memory;
            `disk` otherwise.
        pinned: whether this server keeps it in main memory because of a pin.
        in_flight: requests that use it now.
        damaged: what is wrong with its files, if this server has found that; it is not served until it is repaired.
    """

    version: int
    model: str
    digest: str
    rank: int
    base: str | None
    base_name: str | None
    created: datetime
    by: str | None
    provenance: Mapping[str, Any]
    facts: Mapping[str, Mapping[str, Any]]
    residency: Residency
    pinned: bool
    in_flight: int
    damaged: str | None = None


class Adapter(BaseModel, frozen=True):
    """An adapter with its live versions and the values of its tags."""

    name: str
    tags: Mapping[str, int]
    versions: list[Version]


class Summary(BaseModel, frozen=True):
    """An adapter in a list."""

    name: str
    tags: Mapping[str, int]
    versions: list[int]


class AdapterList(BaseModel, frozen=True):
    """Every adapter in the store that the key sees, of whatever base."""

    object: Literal["list"] = "list"
    data: list[Summary]


class TagValue(BaseModel, frozen=True, extra="forbid"):
    """The version that a tag shall name."""

    version: int


class TagMoved(BaseModel, frozen=True):
    """The value of a tag after a change."""

    name: str
    tag: str
    version: int


class RemovedVersions(BaseModel, frozen=True):
    """What a removal removed, and the tags whose value changed by it: null is a tag that is gone."""

    name: str
    removed: list[int]
    tags: Mapping[str, int | None]


@router.get("")
def adapters(seen: Seen) -> AdapterList:
    """Every adapter by name, with its tags and versions."""
    return AdapterList(
        data=[
            Summary(name=name, tags=seen.tags(name), versions=[v.number for v in seen.versions(name)])
            for name in seen.names()
        ]
    )


@router.post("", status_code=201)
async def publish(request: Request, response: Response, gate: Gated, seen: Seen) -> Version:
    """Publish an adapter from uploaded files or from a source; 201 for a new version, 200 for one that was there.

    As `multipart/form-data`: the fields of `Publication`, and the files `adapter_config.json` and
    `adapter_model.safetensors`, or one archive (.tar, .tar.gz) with both. As JSON: the same fields and `source`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        published = await _publish_upload(request, gate, seen)
    elif media_type == "application/json":
        published = await gate.work.do(_publish_source, await _publication(request), gate, seen)
    else:
        raise WrongContentType(f"send multipart/form-data or application/json, not {media_type or 'without a type'!r}")
    response.status_code = 201 if published.created else 200
    return await announced(published, gate)


@router.put("/{name:path}/tags/{tag}")
def move_tag(name: str, tag: str, value: TagValue, gate: Gated, seen: Seen) -> TagMoved:
    """Let a tag name another version; a rollback is the same call."""
    seen.check_may_publish(check_name(name))
    record = gate.store.tag(name, tag, value.version, by=seen.access.key)
    return TagMoved(name=name, tag=tag, version=record.version)


@router.delete("/{name:path}/versions/{version}")
async def remove_version(name: str, version: int, gate: Gated, seen: Seen) -> RemovedVersions:
    """Remove one version: requests in flight finish, then the engine's copy is freed."""
    return await remove(gate, seen, name, version)


@router.delete("/{name:path}")
async def remove_all(name: str, gate: Gated, seen: Seen) -> RemovedVersions:
    """Remove every version of an adapter: requests in flight finish, then the engine's copies are freed."""
    return await remove(gate, seen, name, None)


@router.get("/{name:path}")
async def adapter(name: str, gate: Gated, seen: Seen) -> Adapter:
    """One adapter: versions, tags, provenance, and where each version is now."""
    records = await run_in_threadpool(seen.versions, check_name(name))
    tags = await run_in_threadpool(seen.tags, name)
    return Adapter(name=name, tags=tags, versions=await described(records, gate))


def publish_source(gate: Gate, seen: View, source: str, publication: Publication) -> Published:
    """Fetch an adapter and publish it.

    Raises:
        Forbidden: the key does not publish under this name.
        NotServed: the source does not begin with an allowed prefix, or nothing is converted here.
    """
    _check_source(gate, seen, source)
    check_publishable(gate, seen, publication.name)
    with fetched(source, gate.settings.cache / "sources") as folder:
        return publish_folder(gate, seen, folder, publication)


def _check_source(gate: Gate, seen: View, source: str) -> None:
    """What a key may fetch from lies under a prefix of the server's, and under one of its own if it has any."""
    prefixes, own = gate.settings.allowed_sources, seen.access.sources
    if _allowed(source, prefixes) and (own is None or _allowed(source, own)):
        return
    told = prefixes if own is None else own
    known = f"those that begin with {', '.join(told)}" if told else "none: `allowed_sources` is empty"
    what = f"this server does not fetch from {source[:200]!r}"
    raise NotServed(f"{what}. It may fetch from {known}", param="source")


def check_publishable(gate: Gate, seen: View, name: str) -> None:
    """See that the key may publish under a name, and that it is not the served base model's own.

    Raises:
        InvalidName, InvalidBody, Forbidden: it cannot be published under.
    """
    gate.selector.check_not_base(check_name(name))
    seen.check_may_create(name)


def publish_folder(gate: Gate, seen: View, folder: Path, publication: Publication) -> Published:
    """Publish a folder for the served base, or with proxy-tuning for the model of the two that it is of.

    Raises:
        InvalidBody: the name is the served base model's own.
        Forbidden: the key does not publish under this name.
    """
    name = publication.name
    check_publishable(gate, seen, name)
    gate.store.check_free(name, publication.tag)
    base = _base_of(gate, folder, publication)
    with _as_plain_lora(gate, folder, base, publication) as (plain, facts):
        return gate.store.publish(
            folder,
            name,
            plain=plain,
            facts=facts,
            tag=publication.tag,
            base=base.fingerprint,
            base_name=base.name,
            allow_noop=publication.allow_noop,
            by=seen.access.key,
        )


def _base_of(gate: Gate, folder: Path, publication: Publication) -> ServedBase:
    """The model that an adapter is published for; another kind than plain LoRA has to be told where there are two."""
    if publication.base is not None:
        return gate.base.named(publication.base)
    if len(gate.base.all) == 1:
        return gate.base
    kind = kind_of(folder)
    if kind.treatment != "plain":
        names = " or ".join(repr(each.name) for each in gate.base.all)
        raise InvalidBody(f"to convert {kind.name}, name the model it was trained on, {names}", param="base")
    return gate.base.owner_of_new(read_manifest(folder))


@contextmanager
def _as_plain_lora(
    gate: Gate, folder: Path, base: ServedBase, publication: Publication
) -> Iterator[tuple[Path, Mapping[str, Fact]]]:
    """The adapter as plain LoRA, for the time of the block, and what was measured of its conversion."""
    kind = kind_of(folder)
    if kind.treatment == "plain":
        if publication.conversion != Options():
            raise InvalidBody(
                "it is plain LoRA and stored as it is: leave out `rank`, `energy` and `max_kl`, meant for other kinds"
            )
        yield folder, {}
        return
    if not gate.settings.convert_uploads:
        raise NotServed(
            f"{kind.name} must be converted to plain LoRA, which this server does not do (`convert_uploads`): use "
            "`loraloom adapters add`"
        )
    with tempfile.TemporaryDirectory(dir=gate.scratch.folder) as out:
        conversion = gate.offline.convert(folder, Path(out), base.model, publication.conversion)
        yield Path(out), {"conversion": conversion.as_json()}


async def remove(gate: Gate, seen: View, name: str, version: int | None) -> RemovedVersions:
    """Remove from the store, then from the engine as soon as no request needs it."""
    await run_in_threadpool(seen.check_may_publish, check_name(name))
    removed = await run_in_threadpool(partial(gate.store.remove, name, version, by=seen.access.key))
    for number in removed.versions:
        canonical = f"{name}@{number}"
        await gate.leases.retire(canonical)
        await run_in_threadpool(gate.mixtures.forget, canonical)
    return RemovedVersions(name=name, removed=list(removed.versions), tags=removed.tags)


def _allowed(source: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a source lies under one of the prefixes, a whole folder at a time."""
    folders = (f"{prefix.rstrip('/')}/" for prefix in prefixes)
    return any(f"{source}/".startswith(folder) and _stays(source[len(folder) :]) for folder in folders)


def _stays(rest: str) -> bool:
    """Whether the rest of a source leads nowhere else: up, or on to another filesystem, as fsspec reads "::"."""
    return ".." not in unquote(rest).replace("\\", "/").split("/") and "::" not in rest


class _FromSource(Publication, frozen=True):
    source: str


async def _publication(request: Request) -> _FromSource:
    try:
        return _FromSource.model_validate_json(await request.body())
    except ValidationError as error:
        problem = first_problem(error.errors())
        raise InvalidBody(f"the body must be an object with `name` and `source`; {problem}") from error


def _publish_source(publication: _FromSource, gate: Gate, seen: View) -> Published:
    return publish_source(gate, seen, publication.source, publication)


async def _publish_upload(request: Request, gate: Gate, seen: View) -> Published:
    place = f"the cache {gate.settings.cache}"
    with reporting(place), tempfile.TemporaryDirectory(dir=gate.scratch.folder) as name:
        folder = Path(name)
        publication = await receive_upload(request, folder, gate.settings.max_upload_bytes)
        return await gate.work.do(publish_folder, gate, seen, folder, publication)


async def announced(published: Published, gate: Gate) -> Version:
    """What clients are told of a publication; what is new is measured soon."""
    if published.created:
        gate.effects.measure(published.version)
    (version,) = await described([published.version], gate)
    return version


async def described(records: Iterable[VersionRecord], gate: Gate) -> list[Version]:
    """What clients are told of versions."""
    tiers = await gate.engine.tiers()
    return await run_in_threadpool(lambda: [_version(record, gate, tiers) for record in records])


def _version(record: VersionRecord, gate: Gate, tiers: Mapping[str, Tier] | None) -> Version:
    held = gate.leases.held_alone(record.canonical)
    return Version(
        version=record.number,
        model=record.canonical,
        digest=record.digest,
        rank=record.rank,
        base=record.base,
        base_name=record.base_name,
        created=datetime.fromisoformat(record.created),
        by=record.by,
        provenance=record.provenance,
        facts=gate.store.facts(record.digest),
        residency=_residency(held, gate, tiers),
        pinned=any(map(gate.leases.pinned, held)),
        in_flight=sum(map(gate.leases.in_flight, held)),
        damaged=gate.damage.blobs.quarantined.get(record.digest),
    )


def _residency(held: Sequence[str], gate: Gate, tiers: Mapping[str, Tier] | None) -> Residency:
    """Where a version is, as the engine says; while it has no time to say, as the leases know."""
    if tiers is not None:
        found = {tiers.get(name, "disk") for name in held}
        return "slot" if "slot" in found else "cpu" if "cpu" in found else "disk"
    return "cpu" if any(map(gate.leases.resident, held)) else "disk"
