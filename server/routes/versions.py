"""What clients are told of a version: where it comes from, and where it is now."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from loraloom.adapters.store.records import Published, VersionRecord
from loraloom.server.gate.gate import Gate, Tier

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
