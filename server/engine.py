"""Every line that depends on the version of vLLM.

Written for 0.26 to 0.33. What moved between them: the module that starts the server, the arguments' module, and
whether an endpoint plugin's route replaces one of vLLM's own.
"""

import asyncio
import importlib
import logging
import signal
import socket
from argparse import Namespace
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRouter
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.lora.request import LoRARequest

from loraloom.server.errors import AdapterNotLoaded, EngineUnavailable

log = logging.getLogger("vllm.loraloom.engine")


def serve(arguments: Sequence[str], listening: socket.socket) -> None:
    """Run vLLM's server on a socket that is bound already, until SIGTERM.

    Args:
        arguments: as for `vllm serve`.
        listening: the socket; uvicorn starts to accept on it when the engine is ready.
    """
    import uvloop

    args = _parse(arguments)
    uvloop.run(_serve(args, listening))


async def _serve(args: Namespace, listening: socket.socket) -> None:
    signal.signal(signal.SIGTERM, _interrupt_start)
    server = _first("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")
    _first("vllm.utils.system_utils").set_ulimit()
    await server.run_server_worker(f"http://{args.host}:{args.port}", listening, args)


def _interrupt_start(*_: object) -> None:
    """SIGTERM before uvicorn has installed its own handlers."""
    raise KeyboardInterrupt("terminated")


def _parse(arguments: Sequence[str]) -> Namespace:
    cli = _first("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
    _first("vllm.entrypoints.serve.utils.api_utils").cli_env_setup()
    parser = _first("vllm.utils.argparse_utils").FlexibleArgumentParser(prog="loraloom serve MODEL --")
    args: Namespace = cli.make_arg_parser(parser).parse_args(list(arguments))
    configure = getattr(importlib.import_module("vllm.logger"), "configure_logging_from_args", None)
    if configure is not None:
        configure(args)
    cli.validate_parsed_serve_args(args)
    return args


def _first(*modules: str) -> ModuleType:
    """The first of these modules that this version has."""
    for name in modules[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(modules[-1])


def put_first(app: FastAPI, router: APIRouter) -> None:
    """Add routes that win over vLLM's own of the same path, in versions that do not see to that by themselves."""
    before = len(app.router.routes)
    app.include_router(router)
    routes = app.router.routes
    routes[:] = routes[before:] + routes[:before]


class VllmEngine:
    """The running engine, as the gate sees it: is it alive, and take this adapter in or out."""

    def __init__(self, client: EngineClient, state: State) -> None:
        """
        Args:
            client: vLLM's asynchronous engine.
            state: of vLLM's application.
        """
        self._client = client
        self._models: Any = state.openai_serving_models

    @property
    def dead(self) -> bool:
        """Whether the engine has stopped for good."""
        return self._client.errored

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self._client.model_config.max_model_len)

    async def load(self, name: str) -> None:
        """Let vLLM ask the resolver for an adapter and load it, before a request for it does.

        A request would do that in its own task, and if its client leaves meanwhile, the engine ends up with an adapter
        that vLLM's front end has not noted and cannot unload.

        Raises:
            EngineUnavailable: the engine has stopped.
            AdapterNotLoaded: the engine refuses it.
        """
        answer = await self._models.resolve_lora(name)
        if isinstance(answer, LoRARequest):
            return
        if self.dead:
            raise EngineUnavailable("the engine stopped while it loaded an adapter; it is being restarted")
        raise AdapterNotLoaded(
            f"the engine cannot load adapter {name!r} into the model that it serves; the server's log has the reason",
            param="model",
        )

    async def unload(self, name: str) -> None:
        """Free the engine's copy, and let vLLM forget the name, so that its next use asks the resolver again.

        vLLM's own unload call forgets the name but keeps the copy (issue 54839).
        """
        request = self._models.lora_requests.pop(name, None)
        self._models.lora_resolver_lock.pop(name, None)
        if request is not None and not self.dead:
            removed = await asyncio.wait_for(_remove(self._client, request.lora_int_id), timeout=60)
            log.debug("unloaded %s: %s", name, removed)


async def _remove(client: Any, identifier: int) -> bool:
    return bool(await client.remove_lora(identifier))


def served_names(args: Namespace) -> list[str]:
    """The names of the base model."""
    names = args.served_model_name or [args.model]
    return [names] if isinstance(names, str) else list(names)


def adapter_limits(client: EngineClient) -> tuple[int, int]:
    """What the engine was started with: adapters in main memory, and the largest rank."""
    config = client.vllm_config.lora_config
    assert config is not None, "LoraLoom starts the engine with --enable-lora"
    return int(config.max_cpu_loras or config.max_loras), int(config.max_lora_rank)
