"""What vLLM loads through its plugin groups. Both do nothing in a vLLM that LoraLoom did not start."""

import asyncio
import logging
import os
from argparse import Namespace
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.lora.resolver import LoRAResolverRegistry

from loraloom.adapters.base import fingerprint
from loraloom.server import engine
from loraloom.server.base import ServedBase
from loraloom.server.gate.blobs import VerifiedBlobs
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.leases import Leases
from loraloom.server.gate.paths import OpenPaths
from loraloom.server.gate.selection import Selector
from loraloom.server.kernels.install import install
from loraloom.server.resolver import LeaseResolver
from loraloom.server.routes import routers
from loraloom.server.settings import Handoff, handed_over
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
        install(enabled=handoff.settings.cpu_kernels)


class LoraLoomRoutes:
    """`vllm.endpoint_plugins`: our routes, the resolver, and the gate's shared state."""

    name = "loraloom_routes"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._gate: Gate | None = None
        self._watch: asyncio.Task[None] | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add our routes and the resolver; vLLM calls this before it looks up resolvers."""
        if handed_over() is None:
            return
        for router in routers():
            engine.put_first(app, router)
        LoRAResolverRegistry.register_resolver("loraloom", LeaseResolver(self._directory))

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Build the gate, then tell the supervisor that the server is about to accept."""
        handoff = handed_over()
        if handoff is None or engine_client is None:
            return
        self._gate = state.loraloom = await asyncio.to_thread(_gate, handoff, engine_client, state, args)
        self._watch = asyncio.create_task(_end_with_the_engine(self._gate))
        os.write(handoff.control, b"r")

    def _directory(self, name: str) -> Path | None:
        return self._gate.leases.directory(name) if self._gate else None


async def _end_with_the_engine(gate: Gate) -> None:
    """When the engine dies, answer what runs and end this process, so that the supervisor can start another.

    vLLM's own server would wait for requests that wait for the engine.
    """
    while not gate.engine.dead:
        await asyncio.sleep(WATCH)
    log.error("the engine has stopped; %d requests are answered with 503", gate.running.interrupt())
    await asyncio.sleep(LAST_WORDS)
    os._exit(1)


def _gate(handoff: Handoff, client: EngineClient, state: State, args: Namespace) -> Gate:
    settings = handoff.settings
    store = open_store(settings)
    base = ServedBase(engine.served_names(args)[0], fingerprint(args.model), store)
    running = engine.VllmEngine(client, state)
    capacity, rank = engine.adapter_limits(client)
    return Gate(
        settings=settings,
        store=store,
        engine=running,
        base=base,
        selector=Selector(store, engine.served_names(args), base, rank),
        leases=Leases(running, VerifiedBlobs(store), capacity, settings.queue_timeout),
        paths=OpenPaths(settings.open_paths),
    )
