"""/v1/adapters: publish, look at, tag and remove adapters while the server runs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from loraloom.adapters.names import check_name
from loraloom.adapters.store.disk import reporting
from loraloom.adapters.store.records import Published
from loraloom.server.access.view import View
from loraloom.server.errors import WrongContentType
from loraloom.server.gate.gate import Gate
from loraloom.server.routes.gated import Gated, GatedRoute, Seen
from loraloom.server.routes.json_body import media_type, received
from loraloom.server.routes.listing import passing_over
from loraloom.server.routes.publication import Publication, check_publishable, from_source, publish_folder
from loraloom.server.routes.upload import Upload, received_upload
from loraloom.server.routes.versions import Version, announced, described

router = APIRouter(prefix="/v1/adapters", route_class=GatedRoute, tags=["LoraLoom"])


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


class _FromSource(Publication, frozen=True):
    source: str


@router.get("")
def adapters(seen: Seen) -> AdapterList:
    """Every adapter by name, with its tags and versions; one whose records are damaged hides no others."""
    found = []
    for name in seen.names():
        with passing_over(name):
            versions = [version.number for version in seen.versions(name)]
            found.append(Summary(name=name, tags=seen.tags(name), versions=versions))
    return AdapterList(data=found)


@router.post("", status_code=201)
async def publish(request: Request, response: Response, gate: Gated, seen: Seen) -> Version:
    """Publish an adapter from uploaded files or from a source; 201 for a new version, 200 for one that was there.

    As `multipart/form-data`: the fields of `Publication`, and the files `adapter_config.json` and
    `adapter_model.safetensors`, or one archive (.tar, .tar.gz) with both. As JSON: the same fields and `source`.
    """
    kind = media_type(request)
    if kind == "multipart/form-data":
        published = await _publish_upload(request, gate, seen)
    elif kind == "application/json":
        wanted = await received(request, _FromSource, "an object with `name` and `source`")
        published = await from_source(gate, seen, wanted.source, wanted)
    else:
        raise WrongContentType(f"send multipart/form-data or application/json, not {kind[:100] or 'without a type'!r}")
    response.status_code = 201 if published.created else 200
    return await announced(published, gate)


@router.put("/{name:path}/tags/{tag}")
async def move_tag(name: str, tag: str, request: Request, seen: Seen) -> TagMoved:
    """Let a tag name another version; a rollback is the same call."""
    value = await received(request, TagValue, 'an object such as {"version": 4}')
    record = await run_in_threadpool(seen.tag, check_name(name), tag, value.version)
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


async def remove(gate: Gate, seen: View, name: str, version: int | None) -> RemovedVersions:
    """Remove from the store, then from the engine as soon as no request needs it."""
    removed = await run_in_threadpool(seen.remove, check_name(name), version)
    for number in removed.versions:
        canonical = f"{name}@{number}"
        await gate.leases.retire(canonical)
        await run_in_threadpool(gate.mixtures.forget, canonical)
    return RemovedVersions(name=name, removed=list(removed.versions), tags=removed.tags)


async def _publish_upload(request: Request, gate: Gate, seen: View) -> Published:
    place = f"the cache {gate.settings.cache}"
    with reporting(place):
        async with received_upload(request) as upload:
            check_publishable(gate, seen, upload.publication.name)
            return await gate.work.do(seen.access.key, _unpack_and_publish, gate, seen, upload)


def _unpack_and_publish(gate: Gate, seen: View, upload: Upload) -> Published:
    with tempfile.TemporaryDirectory(dir=gate.scratch.folder) as name:
        upload.write(Path(name), gate.settings.max_upload_bytes)
        return publish_folder(gate, seen, Path(name), upload.publication)
