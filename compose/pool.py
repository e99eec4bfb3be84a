"""The pool: which versions may be combined, and the base that they share."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from loraloom.adapters.base import BaseFingerprint, check_fits, find_fingerprint
from loraloom.adapters.errors import AdapterNotFound, BaseMismatch
from loraloom.adapters.manifest import Manifest
from loraloom.adapters.names import Adapter, Tag, parse_adapter
from loraloom.adapters.store.records import VersionRecord
from loraloom.compose.errors import InvalidPool
from loraloom.compose.spec import JobSpec


class Adapters(Protocol):
    """Where a pool is found: a store, or what somebody sees of one. Methods raise as those of `Store`."""

    def names(self) -> list[str]:
        """All names."""

    def resolve(self, adapter: Adapter) -> VersionRecord:
        """The version that an adapter stands for now."""

    def manifest(self, digest: str) -> Manifest:
        """What a normal form consists of."""

    def check_free(self, name: str, tag: str | None = None) -> None:
        """See that something can be published under a name, and with a tag."""


@dataclass(frozen=True, slots=True)
class Member:
    """One version in the pool.

    Attributes:
        adapter: its canonical name, such as `sql@4`.
        digest: SHA-256 of its normal form.
        rank: the largest of its modules.
    """

    adapter: str
    digest: str
    rank: int

    def as_json(self) -> dict[str, object]:
        """For a job's file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pool:
    """What may be combined, in the order in which it was named.

    Attributes:
        members: two at the least, all different.
        base: the base model's folder or id.
    """

    members: tuple[Member, ...]
    base: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.adapter for member in self.members)


def find_pool(store: Adapters, spec: JobSpec) -> Pool:
    """The versions that a job's pool stands for now.

    Raises:
        InvalidPool: there are fewer than two, or they are of different bases, or the base cannot be found.
        AdapterNotFound: one that is named is not there.
    """
    records = _distinct(_versions(store, spec))
    if not records:
        raise InvalidPool(
            f"the pool is empty: no adapter of the store is in {spec.pool.adapters!r}: add adapters, or name others"
        )
    base = _base(records, spec.base)
    fingerprint = find_fingerprint(base)
    if fingerprint is None:
        raise InvalidPool(f"the base model {base!r} cannot be found: name its folder or Hugging Face id as `base`")
    fitting = _fitting(store, records, fingerprint, base, strict=not isinstance(spec.pool.adapters, str))
    if len(fitting) < 2:
        only = f" ({fitting[0].canonical})" if fitting else ""
        raise InvalidPool(
            f"the pool has {len(fitting)} adapters{only} of the base {base}: there is something to combine from two on"
        )
    if spec.method == "lorahub" and len({record.rank for record in fitting}) > 1:
        ranks = ", ".join(f"{record.canonical} {record.rank}" for record in fitting)
        raise InvalidPool(f"lorahub takes adapters of one rank only ({ranks}): name those, or use the method exact")
    if spec.pool.preselect and spec.pool.preselect > len(fitting):
        raise InvalidPool(f"preselect is {spec.pool.preselect}, and the pool has {len(fitting)} adapters: leave it out")
    return Pool(tuple(Member(record.canonical, record.digest, record.rank) for record in fitting), base)


def _versions(store: Adapters, spec: JobSpec) -> list[VersionRecord]:
    wanted = spec.pool.adapters
    if not isinstance(wanted, str):
        return [store.resolve(parse_adapter(each)) for each in wanted]
    tag = Tag("latest" if wanted == "all" else wanted.removeprefix("tag:"))
    # What this job published before is made of the others: it would be compared with itself.
    return [version for name in store.names() if name != spec.name for version in _tagged(store, name, tag)]


def _tagged(store: Adapters, name: str, tag: Tag) -> list[VersionRecord]:
    try:
        return [store.resolve(Adapter(name, tag))]
    except AdapterNotFound:  # removed meanwhile, or without this tag
        return []


def _distinct(records: Sequence[VersionRecord]) -> list[VersionRecord]:
    """Without those of the same content: their weights could not be told apart."""
    first: dict[str, VersionRecord] = {}
    for record in records:
        first.setdefault(record.digest, record)
    return list(first.values())


def _base(records: Sequence[VersionRecord], given: str | None) -> str:
    if given is None and len({record.base for record in records if record.base}) > 1:
        bases = ", ".join(sorted({record.base_name or "?" for record in records if record.base}))
        raise InvalidPool(f"the pool has adapters of several bases ({bases}): name one of them as `base`")
    names: Mapping[str, str] = {record.base_name: record.canonical for record in records if record.base_name}
    if given is None and not names:
        raise InvalidPool(
            "no adapter of the pool says what its base model is: name its folder or Hugging Face id as `base`"
        )
    base = given or next(iter(names))
    return str(Path(base).absolute()) if os.path.isdir(base) else base


def _fitting(
    store: Adapters, records: Sequence[VersionRecord], base: BaseFingerprint, name: str, strict: bool
) -> list[VersionRecord]:
    """Those of this base; with `strict`, one of another is refused."""
    fitting = []
    for record in records:
        try:
            _check_base(store, record, base, name)
            fitting.append(record)
        except InvalidPool:
            if strict:
                raise
    return fitting


def _check_base(store: Adapters, record: VersionRecord, base: BaseFingerprint, name: str) -> None:
    if record.base is None:
        try:
            check_fits(store.manifest(record.digest), base)
        except BaseMismatch as error:
            raise InvalidPool(f"{record.canonical} does not fit the base {name}: {error}") from error
    elif record.base != base.digest:
        raise InvalidPool(
            f"{record.canonical} was published for another base ({record.base_name}) than {name}: only adapters of one "
            "base can be combined"
        )
