"""The gate put together from what a server has: its settings, store, engine and base model."""

import os
from collections.abc import Sequence
from typing import Protocol

from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.store import Store
from loraloom.server.base import ServedBase
from loraloom.server.conversion import Converter
from loraloom.server.gate.blobs import VerifiedBlobs
from loraloom.server.gate.contents import Contents
from loraloom.server.gate.effects import Effects, Scoring
from loraloom.server.gate.gate import Engine, Gate
from loraloom.server.gate.leases import Leases, Residents
from loraloom.server.gate.mixtures import Mixtures
from loraloom.server.gate.paths import OpenPaths
from loraloom.server.gate.selection import Selector
from loraloom.server.scratch import Scratch
from loraloom.server.settings import Settings


class WholeEngine(Engine, Residents, Scoring, Protocol):
    """All that the gate wants of an engine."""


def assemble(
    settings: Settings,
    store: Store,
    engine: WholeEngine,
    base: ServedBase,
    base_names: Sequence[str],
    *,
    capacity: int,
    rank: int,
) -> Gate:
    """The gate of one server.

    Args:
        settings: the merged settings.
        store: where the adapters are.
        engine: what runs behind the gate.
        base: the served base model.
        base_names: what selects it; the first is what responses say.
        capacity: adapters that the engine holds in main memory.
        rank: the largest that it serves.
    """
    limit = Limit(rank, settings.mixture_truncate)
    stored = VerifiedBlobs(store)
    mixtures = Mixtures(
        Scratch(settings.cache / "mixtures"),
        stored,
        limit,
        settings.mixture_cache_bytes,
        threads=max(1, (os.cpu_count() or 1) // 4),
    )
    leases = Leases(engine, Contents(stored, mixtures), capacity, settings.queue_timeout)
    return Gate(
        settings=settings,
        store=store,
        engine=engine,
        base=base,
        selector=Selector(store, base_names, base, limit, settings.max_mixture_terms),
        leases=leases,
        mixtures=mixtures,
        effects=Effects(engine, leases, store),
        converter=Converter(str(settings.model)),
        paths=OpenPaths(settings.open_paths),
    )
