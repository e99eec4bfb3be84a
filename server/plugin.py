"""What vLLM loads through its plugin groups. Both do nothing in a vLLM that LoraLoom did not start."""

import asyncio
import logging
import os
from argparse import Namespace

from fastapi import FastAPI
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.server import engine
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.gate.assembly import assemble
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.note import Note
from loraloom.server.gate.residency import Pace, Residency
from loraloom.server.kernels.build import library
from loraloom.server.kernels.install import install
from loraloom.server.machine import processor_flags
from loraloom.server.proxy.pair import ARCHITECTURE
from loraloom.server.routes import routers
from loraloom.server.settings import Handoff, Settings, handed_over
from loraloom.server.store import open_store

log = logging.getLogger("vllm.loraloom.plugin")

WATCH = 0.25
"""Seconds between two looks at the engine's health."""
LAST_WORDS = 1.0
"""Seconds that the answers of interrupted requests get to leave."""


def register() -> None:
    """`vllm.general_plugins`: runs in every process of the engine."""
    handoff = handed_over()
    if handoff is not None:
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
        gate = state.loraloom = await asyncio.to_thread(_gate, handoff, engine_client, state, args)
        background = (_end_with_the_engine(gate), _residency(gate).run(), gate.jobs.run())
        self._tasks = [asyncio.create_task(each) for each in background]
        os.write(handoff.control, b"r")


async def _end_with_the_engine(gate: Gate) -> None:
    """When the engine dies, answer what runs and end this process, so that the supervisor can start another.

    vLLM's own server would wait for requests that wait for the engine.
    """
    while not gate.engine.dead:
        await asyncio.sleep(WATCH)
    log.error("the engine has stopped; %d requests are answered with 503", gate.running.interrupt())
    await asyncio.sleep(LAST_WORDS)
    os._exit(1)


def _residency(gate: Gate) -> Residency:
    return Residency(
        leases=gate.leases,
        pins=gate.store.pins,
        settle=gate.selector.settle,
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


def _gate(handoff: Handoff, client: EngineClient, state: State, args: Namespace) -> Gate:
    settings = handoff.settings
    store = open_store(settings)
    base = _base(settings, engine.served_names(args)[0], store)
    running = engine.VllmEngine(client, state)
    capacity, rank = engine.adapter_limits(client)
    return assemble(settings, store, running, base, engine.served_names(args), capacity=capacity, rank=rank)
