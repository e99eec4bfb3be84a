"""How an adapter gets into the store: checked, rewritten to the normal form, and recorded last of all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.base import BaseFingerprint, check_fits
from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, read_manifest
from loraloom.adapters.names import check_tag
from loraloom.adapters.normal import normalise
from loraloom.adapters.store.bundles import Bundles, digest_of_folder
from loraloom.adapters.store.facts import Fact, Facts, update_of
from loraloom.adapters.store.objects import Objects
from loraloom.adapters.store.records import Published, VersionRecord
from loraloom.adapters.store.registry import Registry
from loraloom.adapters.store.stage import Stage

_GIVEN_FILES = (CONFIG_FILE, WEIGHTS_FILE, "README.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What is to be published; see `Store.publish`."""

    folder: Path
    name: str
    plain: Path | None
    tag: str | None
    base: BaseFingerprint | None
    base_name: str | None
    allow_noop: bool
    by: str | None
    provenance: Mapping[str, object]
    facts: Mapping[str, Fact]


def publish(given: Publication, objects: Objects, registry: Registry) -> Published:
    """Carry it out. Raises as `Store.publish`."""
    registry.check_free(given.name)
    tags = dict.fromkeys(("latest", check_tag(given.tag or "latest")))
    base_name = given.base_name or read_manifest(given.plain or given.folder).base_model
    registry.prepare()
    with objects.staged() as stage:
        original = _copy(given.folder, stage, "original")
        plain = original if given.plain in (None, given.folder) else _copy(given.plain, stage, "plain")
        normal_form = stage.subfolder("normal")
        if given.base is not None:
            # Before any tensor is read: what fits no model may be of any size.
            check_fits(read_manifest(plain), given.base)
        normal = normalise(plain, normal_form, allow_noop=given.allow_noop)
        draft = VersionRecord(
            number=0,
            name=given.name,
            digest=normal.digest,
            original=digest_of_folder(original),
            base=None if given.base is None else given.base.digest,
            base_name=base_name,
            rank=normal.manifest.rank,
            by=given.by,
            provenance=dict(given.provenance),
            tags=tuple(tags),
        )
        # Until the record is there, the files look like garbage.
        with objects.kept((draft.digest, draft.original)):
            Bundles(objects, "originals").keep(original)
            Bundles(objects, "blobs").keep(normal_form)
            for kind, fact in {**given.facts, "update": update_of(normal, given.base)}.items():
                Facts(objects).note(draft.digest, kind, fact)
            return registry.add(draft, given.tag)


def _copy(folder: Path, stage: Stage, name: str) -> Path:
    """The adapter's own files, which from now on nobody else can change."""
    target = stage.subfolder(name)
    present = [file for file in _GIVEN_FILES if os.path.lexists(folder / file)]
    if not present:
        raise InvalidAdapter(f"{folder} has none of {', '.join(_GIVEN_FILES)}: give the folder of an adapter")
    for file in present:
        stage.copy(folder / file, f"{name}/{file}")
    return target
