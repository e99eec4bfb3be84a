"""The lines that depend on vLLM, against vLLM's own front end over an engine that only keeps a list."""

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.datastructures import State

from loraloom.server.errors import AdapterNotLoaded, EngineUnavailable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM's own imports warn of deprecations
    from vllm.entrypoints.openai.models.protocol import BaseModelPath
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolverRegistry

    from loraloom.server.engine import VllmEngine, adapter_limits, put_first, served_names
    from loraloom.server.resolver import LeaseResolver


class Client:
    """vLLM's asynchronous engine, as far as its front end for adapters calls it.

    Attributes:
        held: the adapters in memory, by vLLM's identifier.
        refuses: whether it cannot load any.
        gate: set while loading goes on; clear it to keep an adapter loading.
    """

    renderer = input_processor = None
    model_config = SimpleNamespace(max_model_len=512, model="tiny")

    def __init__(self) -> None:
        self.held: dict[int, LoRARequest] = {}
        self.refuses = False
        self.errored = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def add_lora(self, request: LoRARequest) -> bool:
        """The engine's process goes on loading, whatever becomes of the caller."""
        return await asyncio.shield(asyncio.ensure_future(self._load(request)))

    async def remove_lora(self, identifier: int) -> bool:
        return self.held.pop(identifier, None) is not None

    async def _load(self, request: LoRARequest) -> bool:
        await self.gate.wait()
        if self.refuses:
            raise ValueError("no such module")
        self.held[request.lora_int_id] = request
        return True


@pytest.fixture
def directories() -> dict[str, Path]:
    """What is leased."""
    return {"sql@1": Path("/blobs/1"), "sql@2": Path("/blobs/2")}


@pytest.fixture(autouse=True)
def resolver(directories: dict[str, Path]) -> Iterator[None]:
    before = dict(LoRAResolverRegistry.resolvers)
    LoRAResolverRegistry.resolvers.clear()
    LoRAResolverRegistry.register_resolver("loraloom", LeaseResolver(directories.get))
    yield
    LoRAResolverRegistry.resolvers.clear()
    LoRAResolverRegistry.resolvers.update(before)


@pytest.fixture
async def client() -> Client:
    return Client()


@pytest.fixture
def models(client: Client) -> OpenAIServingModels:
    """vLLM's own table of models and adapters."""
    engine: Any = client
    return OpenAIServingModels(engine, [BaseModelPath(name="tiny", model_path="tiny")])


@pytest.fixture
def engine(client: Client, models: OpenAIServingModels) -> VllmEngine:
    given: Any = client
    return VllmEngine(given, State({"openai_serving_models": models}))


def held(client: Client) -> list[tuple[str, str]]:
    return [(request.lora_name, request.lora_path) for request in client.held.values()]


async def test_loading_goes_through_vllms_front_end(
    engine: VllmEngine, client: Client, models: OpenAIServingModels
) -> None:
    await engine.load("sql@1")
    assert held(client) == [("sql@1", "/blobs/1")]
    assert list(models.lora_requests) == ["sql@1"]
    await engine.load("sql@1")
    assert len(client.held) == 1


async def test_unloading_frees_the_engines_copy_and_the_name(
    engine: VllmEngine, client: Client, models: OpenAIServingModels, directories: dict[str, Path]
) -> None:
    await engine.load("sql@1")
    await engine.load("sql@2")
    await engine.unload("sql@1")
    assert held(client) == [("sql@2", "/blobs/2")]
    assert list(models.lora_requests) == ["sql@2"]
    assert list(models.lora_resolver_lock) == ["sql@2"]
    directories["sql@1"] = Path("/blobs/elsewhere")
    await engine.load("sql@1")
    assert ("sql@1", "/blobs/elsewhere") in held(client)


async def test_unloading_what_is_not_there(engine: VllmEngine, client: Client) -> None:
    await engine.unload("sql@1")
    assert client.held == {}


async def test_an_adapter_that_the_engine_refuses(
    engine: VllmEngine, client: Client, models: OpenAIServingModels
) -> None:
    client.refuses = True
    with pytest.raises(AdapterNotLoaded, match="cannot load adapter 'sql@1'") as refusal:
        await engine.load("sql@1")
    assert refusal.value.param == "model"
    assert models.lora_requests == {}
    client.refuses = False
    await engine.load("sql@1")
    assert held(client) == [("sql@1", "/blobs/1")]


async def test_a_name_that_nobody_leases(engine: VllmEngine) -> None:
    with pytest.raises(AdapterNotLoaded):
        await engine.load("sql@3")


async def test_an_engine_that_has_died(engine: VllmEngine, client: Client, models: OpenAIServingModels) -> None:
    await engine.load("sql@1")
    client.errored = client.refuses = True
    assert engine.dead
    with pytest.raises(EngineUnavailable):
        await engine.load("sql@2")
    await engine.unload("sql@1")  # its process is gone, there is nothing to ask it
    assert list(models.lora_requests) == []
    assert held(client) == [("sql@1", "/blobs/1")]


async def test_vllm_loses_track_of_what_a_leaving_client_was_loading(
    client: Client, models: OpenAIServingModels
) -> None:
    """Why `load` is called before a request goes to vLLM, in a task that no client can cancel.

    If this fails, vLLM has mended it, and requests may load adapters by themselves.
    """
    client.gate.clear()
    request = asyncio.ensure_future(models.resolve_lora("sql@1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait([request])
    client.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert held(client) == [("sql@1", "/blobs/1")]
    assert models.lora_requests == {}


async def test_what_the_gate_asks_of_the_engine(engine: VllmEngine, client: Client) -> None:
    assert engine.max_model_len == 512
    assert not engine.dead
    client.errored = True
    assert engine.dead


async def test_our_routes_win_over_those_of_the_same_path() -> None:
    app = FastAPI()

    @app.get("/v1/models")
    async def theirs() -> str:
        return "theirs"

    @app.get("/health")
    async def health() -> str:
        return "theirs"

    first, second = APIRouter(), APIRouter()

    @first.get("/v1/models")
    async def ours() -> str:
        return "ours"

    @second.get("/ready")
    async def ready() -> str:
        return "ours"

    for router in (first, second):
        put_first(app, router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as asking:
        answers = {path: (await asking.get(path)).json() for path in ("/v1/models", "/health", "/ready")}
    assert answers == {"/v1/models": "ours", "/health": "theirs", "/ready": "ours"}


@pytest.mark.parametrize(
    ("served", "names"), [(None, ["org/model"]), ("a", ["a"]), (["a", "b"], ["a", "b"]), ([], ["org/model"])]
)
def test_the_names_of_the_base(served: Any, names: list[str]) -> None:
    args: Any = SimpleNamespace(served_model_name=served, model="org/model")
    assert served_names(args) == names


@pytest.mark.parametrize(("cpu", "expected"), [(None, (4, 16)), (9, (9, 16))])
def test_the_limits_that_the_engine_was_started_with(cpu: int | None, expected: tuple[int, int]) -> None:
    lora = SimpleNamespace(max_cpu_loras=cpu, max_loras=4, max_lora_rank=16)
    client: Any = SimpleNamespace(vllm_config=SimpleNamespace(lora_config=lora))
    assert adapter_limits(client) == expected


def test_vllms_arguments_are_parsed_as_its_own_server_does() -> None:
    from loraloom.server.engine import _parse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = _parse(["--model", "org/model", "--enable-lora", "--served-model-name", "a", "--port", "8123"])
    assert (args.model, args.served_model_name, args.port, args.enable_lora) == ("org/model", ["a"], 8123, True)
