"""What vLLM loads through its plugin groups. Both do nothing in a vLLM that LoraLoom did not start."""

import asyncio
import logging
import os
from argparse import Namespace
from functools import partial

from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.server import draining, engine
from loraloom.server.access.exposure import check_exposure
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.ending import WATCH, end_with
from loraloom.server.gate.assembly import assemble
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.note import Note
from loraloom.server.gate.residency import Pace, Residency
from loraloom.server.kernels.build import library
from loraloom.server.kernels.install import install
from loraloom.server.machine import processor_flags
from loraloom.server.observe.logs import mask_secrets
from loraloom.server.observe.observer import Observer
from loraloom.server.observe.standing import Sources, Standing, Tiers
from loraloom.server.proxy.pair import ARCHITECTURE
from loraloom.server.routes import routers
from loraloom.server.settings import Handoff, Settings, handed_over
from loraloom.server.store import open_store

log = logging.getLogger("vllm.loraloom.plugin")


def register() -> None:
    """`vllm.general_plugins`: runs in every process of the engine."""
    handoff = handed_over()
    if handoff is not None:
        mask_secrets()
        built = library(handoff.settings.cache, processor_flags())
        install(enabled=handoff.settings.cpu_kernels, library=built if built.is_file() else None)
        engine.register_model(ARCHITECTURE, "loraloom.server.proxy.composite.model:ProxyForCausalLM")


class LoraLoomRoutes:
    """`vllm.endpoint_plugins`: our routes, and the gate's shared state."""

    name = "loraloom_routes"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes."""
        if handed_over() is None:
            return
        for router in routers():
            engine.put_first(app, router)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Build the gate, then tell the supervisor that the server is about to accept."""
        handoff = handed_over()
        if handoff is None or engine_client is None:
            return
        observer = Observer.start(handoff.settings, REGISTRY)
        gate = state.loraloom = await asyncio.to_thread(_gate, handoff, engine_client, state, args, observer)
        engine.meter(engine_client)
        engine.answer_refusals(state)
        tiers = Tiers(gate.engine.tiers)
        REGISTRY.register(Standing(_sources(gate, tiers)))
        background = (
            end_with(gate.engine, gate.running, partial(engine.stop_accepting, state), gate.observer.close),
            _stop_admitting(gate),
            _residency(gate).run(),
            gate.jobs.run(),
            gate.keys.run(),
            tiers.run(),
        )
        self._tasks = [asyncio.create_task(each) for each in background]
        os.write(handoff.control, b"r")


async def _stop_admitting(gate: Gate) -> None:
    """When the supervisor says so, let nothing new begin: what waits is told to ask another server, or the next."""
    while not draining.BEGUN.is_set():
        await asyncio.sleep(WATCH)
    gate.admission.close()


def _sources(gate: Gate, tiers: Tiers) -> Sources:
    return Sources(
        alive=lambda: not gate.engine.dead,
        tiers=tiers.numbers,
        pinned=lambda: gate.leases.pins,
        damaged=lambda: len(gate.damage.blobs.quarantined),
        jobs=gate.jobs.numbers,
        waiting=gate.admission.waiting,
        waiting_behind=gate.admission.waiting_behind,
        running=gate.admission.running,
        label_of=gate.observer.traffic.label_of,
        ledger=gate.observer.ledger,
    )


def _residency(gate: Gate) -> Residency:
    return Residency(
        leases=gate.leases,
        pins=gate.store.pins,
        settle=gate.selector.settle_own,
        note=Note.of(gate.settings, gate.store, gate.base.name),
        pace=Pace() if gate.store.local else Pace(pins=30.0),
    )


def _base(settings: Settings, name: str, store: Store) -> ServedBase:
    model = str(settings.model)
    base = ServedBase(name, fingerprint(model), store, model)
    if settings.proxy_small is None:
        return base
    small = ServedBase(settings.small_name, fingerprint(settings.proxy_small), store, settings.proxy_small)
    return ServedPair(base, small, store)


def _gate(handoff: Handoff, client: EngineClient, state: State, args: Namespace, observer: Observer) -> Gate:
    """Raises `InvalidSettings` where a server that others can reach finds no keys: its store may be the wrong one."""
    settings = handoff.settings
    store = open_store(settings)
    base = _base(settings, engine.served_names(args)[0], store)
    running = engine.VllmEngine(client, state)
    gate = assemble(settings, store, running, base, engine.served_names(args), engine.limits_of(client), observer)
    check_exposure(settings.host, keys=gate.keys.in_force, insecure=settings.insecure)
    return gate
