"""Every line that depends on the version of vLLM, but for those in `worker` that run in its workers.

Written for 0.26 to 0.33. What moved between them: the module that starts the server, the arguments' module, and
whether an endpoint plugin's route replaces one of vLLM's own.
"""

import asyncio
import contextlib
import importlib
import logging
import signal
import socket
import uuid
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRouter
from prometheus_client import REGISTRY
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient
from vllm.lora.request import LoRARequest
from vllm.model_executor.models.registry import ModelRegistry
from vllm.sampling_params import SamplingParams

from loraloom.server.errors import AdapterNotLoaded, EngineUnavailable
from loraloom.server.gate.assembly import EngineLimits
from loraloom.server.gate.gate import Tier
from loraloom.server.observe.meter import metered

log = logging.getLogger("vllm.loraloom.engine")

FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.05
"""Seconds between two questions whether an adapter has been read."""
UNLOADS = 200
"""So many adapters leave the engine between two tidyings of its metrics."""
TELL = 1.0
"""Seconds that the engine gets to say what it holds; it answers between two steps."""


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


def register_model(architecture: str, target: str) -> None:
    """Let vLLM know a model class by `module:class`, which it imports when it needs it."""
    ModelRegistry.register_model(architecture, target)


def put_first(app: FastAPI, router: APIRouter) -> None:
    """Add routes that win over vLLM's own of the same path, in versions that do not see to that by themselves."""
    before = len(app.router.routes)
    app.include_router(router)
    routes = app.router.routes
    routes[:] = routes[before:] + routes[:before]


def stop_accepting(state: State) -> None:
    """Take no new connection: whoever else has the listening socket finds those that come. Those that are open stay.

    Args:
        state: of the application; vLLM keeps uvicorn's server in it.
    """
    for listener in getattr(getattr(state, "server", None), "servers", ()):
        listener.close()


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
        self._unloaded = 0

    @property
    def dead(self) -> bool:
        """Whether the engine has stopped for good."""
        return self._client.errored

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self._client.model_config.max_model_len)

    async def load(self, name: str, folder: Path) -> None:
        """Let every worker of the engine read an adapter into main memory, then let requests use it by its name.

        vLLM's own way reads it within the engine's loop, which all requests wait for, and gives it a slot at once.

        Raises:
            EngineUnavailable: the engine has stopped.
            AdapterNotLoaded: the engine refuses it.
        """
        request = LoRARequest(name, self._models.lora_id_counter.inc(1), str(folder))
        try:
            await self._read(request)
        except BaseException as error:
            with contextlib.suppress(Exception):  # what went wrong first is what counts
                await self._forget(request)
            if self.dead:
                raise EngineUnavailable("the engine stopped while it loaded an adapter; try again later") from error
            raise
        self._models.lora_requests[name] = request

    async def unload(self, name: str) -> None:
        """Free the engine's copy, and let vLLM forget the name.

        vLLM's own unload call forgets the name but keeps the copy (issue 54839).
        """
        request = self._models.lora_requests.pop(name, None)
        if request is not None:
            await self._forget(request)
            self._unloaded += 1
            if self._unloaded % UNLOADS == 0:
                forget_adapters_in_metrics()

    async def tiers(self) -> Mapping[str, Tier] | None:
        """Where each adapter is that the engine holds, by its name; None when the engine has no time to say."""
        try:
            (slots, held), *_ = await asyncio.wait_for(self._ask("loraloom_tiers"), TELL)
        except Exception:  # also of an engine that dies meanwhile
            return None
        names = {request.lora_int_id: name for name, request in self._models.lora_requests.items()}
        return {names[each]: "slot" if each in slots else "cpu" for each in held if each in names}

    async def prompt_logprobs(self, name: str | None, prompt: str) -> list[float]:
        """The log-probability of each token of a prompt after its first, in nats.

        Args:
            name: an adapter that is loaded; None is the plain base model.
            prompt: the text, without a chat template.
        """
        adapter = None if name is None else self._models.lora_requests[name]
        client: Any = self._client
        wanted = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        request = client.generate(prompt, wanted, f"loraloom-{uuid.uuid4().hex}", lora_request=adapter)
        *_, last = [output async for output in request]
        tokens = zip(last.prompt_token_ids, last.prompt_logprobs, strict=True)
        return [float(entries[token].logprob) for token, entries in tokens if entries]

    async def _read(self, request: LoRARequest) -> None:
        """Ask all workers to read an adapter until all hold it."""
        pause = FIRST_PAUSE
        while states := await self._states(request) - {"held"}:
            if states != {"reading"}:
                raise AdapterNotLoaded(
                    f"the engine cannot load adapter {request.lora_name!r} into the model that it serves; the server's "
                    "log has the reason",
                    param="model",
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _states(self, request: LoRARequest) -> set[str]:
        return set(await self._ask("loraloom_read", request.lora_int_id, request.lora_name, request.lora_path))

    async def _forget(self, request: LoRARequest) -> None:
        if not self.dead:
            freed = await asyncio.wait_for(self._ask("loraloom_drop", request.lora_int_id), timeout=60)
            log.debug("freed %s: %s", request.lora_name, freed)

    async def _ask(self, method: str, *arguments: object) -> list[Any]:
        """The answer of every worker to a method of `AdapterReading`."""
        client: Any = self._client
        answers: list[Any] = await client.collective_rpc(method, args=arguments)
        return answers


def meter(client: EngineClient) -> None:
    """Let every request pay for what the engine computes for it.

    The one place where something of vLLM's client is replaced: all its handlers, of whichever path and version, call
    this method of this object, and nothing else sees every token, also of an answer that nobody waits for any more.
    Answers tell less: in a stream only what `stream_options` asks for, and nothing of what was aborted.
    """
    theirs: Any = client
    theirs.generate = metered(theirs.generate, abort=theirs.abort)


def answer_refusals(state: State) -> None:
    """Answer what is wrong with a request to `/v1/messages` as vLLM's other paths do.

    Left alone, each such request has a traceback in the log, which whoever sends them could fill; and vLLM 0.26 answers
    500.
    """
    serving: Any = getattr(state, "anthropic_serving_messages", None)
    if serving is not None:
        serving.create_messages = _refusing(serving.create_messages, serving.create_error_response)
        serving.count_tokens = _refusing(serving.count_tokens, serving.create_error_response)


def _refusing(handle: Callable[..., Awaitable[Any]], answer: Callable[[Exception], Any]) -> Callable[..., Any]:
    async def handled(*args: Any, **named: Any) -> Any:
        try:
            return await handle(*args, **named)
        except Exception as error:
            refusal = answer(error)
            if refusal.error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            return refusal

    return handled


def forget_adapters_in_metrics() -> None:
    """Empty a gauge that keeps labels for every set of adapters that ever ran: mixtures are without number."""
    known: Mapping[str, Any] = getattr(REGISTRY, "_names_to_collectors", {})
    gauge = known.get("vllm:lora_requests_info")
    if gauge is not None:
        gauge.clear()


def served_names(args: Namespace) -> list[str]:
    """The names of the base model."""
    names = args.served_model_name or [args.model]
    return [names] if isinstance(names, str) else list(names)


def limits_of(client: EngineClient) -> EngineLimits:
    """What the engine was started with."""
    config = client.vllm_config.lora_config
    assert config is not None, "LoraLoom starts the engine with --enable-lora"
    return EngineLimits(
        sequences=int(client.vllm_config.scheduler_config.max_num_seqs),
        slots=int(config.max_loras),
        capacity=int(config.max_cpu_loras or config.max_loras),
        rank=int(config.max_lora_rank),
    )
