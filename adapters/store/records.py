"""What the store writes down: small immutable records, one JSON object each."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, TypeVar


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every record says.

    Attributes:
        number: its place among those of its kind, from 1.
        created: UTC, ISO 8601.
        id: no other record has it.
        by: who is behind it, if that is known.
    """

    number: int
    created: str = field(default_factory=_now)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord(Record):
    """One version of an adapter. Its number is never given again, also not after removal.

    Attributes:
        name: the adapter's name as it was published.
        digest: SHA-256 of the normal form, 64 hex digits.
        original: digest of what was given.
        base: digest of the base model's fingerprint; None while the adapter is not bound to a base.
        base_name: the base model's path or id, as said by the publisher or the adapter.
        rank: the largest rank of any module.
        provenance: where it came from, as JSON.
        tags: the tags that were moved to it on publication.
    """

    name: str
    digest: str
    original: str
    base: str | None
    base_name: str | None
    rank: int
    provenance: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    @property
    def canonical(self) -> str:
        """The name that selects exactly this version, now and for ever: `sql@4`."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRecord(Record):
    """One move of a tag. It counts only if there is a version `version` whose id is `version_id`.

    Attributes:
        digest: of that version.
        restores: for a rollback, the number of the earlier move whose version it brings back.
    """

    tag: str
    version: int
    version_id: str
    digest: str
    restores: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalRecord(Record):
    """One removal, of one version or of several at once.

    Attributes:
        last: whether it left no version.
    """

    versions: tuple[int, ...]
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PinRecord(Record):
    """What is pinned under one name after a change.

    Attributes:
        end: the name's `History.end` at that time; the pins are void when it has come to another.
        pins: when each version was pinned (UTC, ISO 8601), by the version as it was given, such as "latest".
    """

    name: str
    end: int
    pins: Mapping[str, str] = field(default_factory=dict)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def encode(record: Record) -> bytes:
    """The record as JSON, for people too."""
    return json.dumps(asdict(record), indent=1, ensure_ascii=False).encode() + b"\n"


def decode(kind: type[AnyRecord], data: bytes) -> AnyRecord:
    """The record that `data` holds; keys that this version does not know are left out.

    Raises:
        ValueError: it is not such a record.
    """
    values = json.loads(data)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    known: dict[str, Any] = {key.name: values[key.name] for key in fields(kind) if key.name in values}
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Published:
    """The outcome of a publication: `created` is False when a live version had this content already."""

    version: VersionRecord
    created: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """The outcome of a removal.

    Attributes:
        tags: the tags that pointed to a removed version, and the version to which each fell back; None: it is gone.
    """

    name: str
    versions: tuple[int, ...]
    tags: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` found.

    Attributes:
        kind: "damaged" (repair it: add the adapter again), "garbage" (takes space and does no harm), or "fact" (a
            measurement that cannot be read; nothing but people needs it). Of the audit log: "log" (it is not what was
            written), "record" (a record is not what the log says) or "unaudited" (it says nothing of a record).
        path: where it is, relative to the store.
        detail: what is wrong with it.
    """

    kind: str
    path: str
    detail: str
