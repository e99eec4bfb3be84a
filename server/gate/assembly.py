"""The gate put together from what a server has: its settings, store, engine and base model."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loraloom.adapters.mixtures.mix import Limit, Outcome
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.store import Store
from loraloom.compose.jobs import Jobs
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.table import KeyTable
from loraloom.server.admission.admission import Admission
from loraloom.server.admission.limits import Limits
from loraloom.server.admission.rules import Rules, usual_reserve
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.gate.blobs import VerifiedBlobs
from loraloom.server.gate.bodies import Bodies
from loraloom.server.gate.building import Builder, Write, write_mixture
from loraloom.server.gate.contents import Contents
from loraloom.server.gate.damage import Damage
from loraloom.server.gate.effects import Effects, Scoring
from loraloom.server.gate.gate import Engine, Gate
from loraloom.server.gate.leases import Leases, Residents
from loraloom.server.gate.looks import Looks
from loraloom.server.gate.mixtures import Mixtures
from loraloom.server.gate.paths import OpenPaths
from loraloom.server.gate.placement import OnTheBase, Placement
from loraloom.server.gate.selection import Selector
from loraloom.server.gate.turns import Turns
from loraloom.server.job_process import Child
from loraloom.server.jobs import JobQueue
from loraloom.server.observe.events import building
from loraloom.server.observe.observer import Observer
from loraloom.server.offline import Offline
from loraloom.server.proxy.placement import OnThePair
from loraloom.server.proxy.variant import write_variant
from loraloom.server.scratch import Scratch
from loraloom.server.settings import Settings


@dataclass(frozen=True)
class EngineLimits:
    """What the engine was started with.

    Attributes:
        sequences: that it computes at a time.
        slots: distinct adapters among them.
        capacity: adapters that it holds in main memory.
        rank: the largest that it serves.
    """

    sequences: int
    slots: int
    capacity: int
    rank: int


LOCAL_PATIENCE, REMOTE_PATIENCE = 5.0, 30.0
"""Seconds that a request waits for one look into the store."""
BUILDS = 2
"""Mixtures of one key that are built, or wait for it, at a time."""
READERS = 8
"""Adapters that are read from disk at a time."""


class WholeEngine(Engine, Residents, Scoring, Protocol):
    """All that the gate wants of an engine."""


def assemble(
    settings: Settings,
    store: Store,
    engine: WholeEngine,
    base: ServedBase,
    base_names: Sequence[str],
    limits: EngineLimits,
    observer: Observer | None = None,
) -> Gate:
    """The gate of one server.

    Args:
        settings: the merged settings.
        store: where the adapters are.
        engine: what runs behind the gate.
        base: the served base model.
        base_names: what selects it; the first is what responses say.
        limits: what the engine was started with.
        observer: told of what requests cost; nobody is unless one is given.
    """
    observer = observer or Observer()
    keys = KeyTable(KeyRing(store))
    limit = Limit(limits.rank, settings.mixture_truncate)
    stored = VerifiedBlobs(store)
    scratch = Scratch(settings.cache / "scratch")
    placement, write = _putting(settings, base)
    builder = Builder(stored, limit, settings.mixture_cache_bytes, write)

    def build(recipe: Recipe, folder: Path) -> Outcome:
        with building(observer.events):
            return builder.build(recipe, folder)

    mixtures = Mixtures(
        scratch.subfolder("mixtures"),
        build,
        settings.mixture_cache_bytes,
        settings.queue_timeout,
        threads=max(1, len(os.sched_getaffinity(0)) // 4),
    )
    looks = Looks(f"the store {store.url}", LOCAL_PATIENCE if store.local else REMOTE_PATIENCE)
    selector = Selector(store, base_names, base, limit, settings.max_mixture_terms, placement, looks)
    threads = ThreadPoolExecutor(READERS, "loraloom-adapters")
    leases = Leases(
        engine, Contents(stored, mixtures), limits.capacity, settings.queue_timeout, observer.events, threads
    )
    effects = Effects(engine, leases, store, selector.settle_own)
    return Gate(
        settings=settings,
        store=store,
        engine=engine,
        base=base,
        selector=selector,
        leases=leases,
        mixtures=mixtures,
        effects=effects,
        offline=Offline(scratch.subfolder("offline")),
        jobs=JobQueue(
            Jobs(settings.jobs),
            Child(settings.cache / "blobs", scratch.subfolder("compose")),
            keys.temporary,
            store.resolve,
            effects.measure,
        ),
        scratch=scratch,
        paths=OpenPaths(settings.open_paths),
        keys=keys,
        limits=Limits(),
        admission=Admission(_rules(settings, limits, shared=keys.in_force)),
        observer=observer,
        bodies=Bodies(
            settings.max_bodies_bytes, settings.max_bodies_bytes // 4 if keys.in_force else settings.max_bodies_bytes
        ),
        building=Turns(BUILDS, settings.queue_timeout),
        looks=looks,
        damage=Damage(stored, selector),
    )


def _rules(settings: Settings, limits: EngineLimits, *, shared: bool) -> Rules:
    """What the queue goes by; without keys everybody is one, and nothing is held back for others."""
    return Rules(
        seats=limits.sequences,
        adapters=limits.slots,
        reserve=usual_reserve(limits.sequences) if shared else 0,
        patience=settings.queue_timeout,
        hold=settings.cold_wait,
        most_waiting=settings.max_waiting,
        most_of_a_key=max(1, settings.max_waiting // 4) if shared else settings.max_waiting,
    )


def _putting(settings: Settings, base: ServedBase) -> tuple[Placement, Write]:
    """How adapters are put onto what is served, and how what is put there is written."""
    if not isinstance(base, ServedPair):
        return OnTheBase(base.name), write_mixture
    own_expert = settings.proxy_expert is not None
    return OnThePair(base.name, base, settings.proxy_alpha, settings.proxy_max_alpha, own_expert), write_variant
