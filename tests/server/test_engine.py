"""The lines that depend on vLLM, against vLLM's own front end over an engine that only keeps a list."""

import asyncio
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from prometheus_client import REGISTRY, Gauge
from starlette.datastructures import State

from loraloom.server.errors import AdapterNotLoaded, EngineUnavailable
from loraloom.server.gate.assembly import EngineLimits
from loraloom.server.observe.account import CURRENT, Account

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM's own imports warn of deprecations
    from vllm.entrypoints.openai.models.protocol import BaseModelPath
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.entrypoints.serve.engine.serving import BaseServing
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.output_processor import RequestOutputCollector
    from vllm.v1.metrics.stats import RequestStateStats

    from loraloom.server.engine import (
        VllmEngine,
        answer_refusals,
        forget_adapters_in_metrics,
        limits_of,
        meter,
        put_first,
        served_names,
        stop_accepting,
    )


class Worker:
    """What a worker's `AdapterReading` answers.

    Attributes:
        held: the adapters in memory, by vLLM's identifier.
        slots: the identifiers in slots.
        rounds: how often it says "reading" before it holds an adapter.
        refuses: whether it cannot load any.
    """

    def __init__(self) -> None:
        self.held: dict[int, tuple[str, str]] = {}
        self.slots: list[int] = []
        self.rounds = 0
        self.refuses = False
        self.reading: dict[int, int] = {}

    def loraloom_read(self, identifier: int, name: str, folder: str) -> str:
        left = self.reading.setdefault(identifier, self.rounds)
        if left > 0:
            self.reading[identifier] = left - 1
            return "reading"
        if self.refuses:
            del self.reading[identifier]
            return "refused"
        self.held[identifier] = (name, folder)
        return "held"

    def loraloom_drop(self, identifier: int) -> bool:
        return bool({self.reading.pop(identifier, None), self.held.pop(identifier, None)} - {None})

    def loraloom_tiers(self) -> tuple[list[int], list[int]]:
        return self.slots, list(self.held)


class Client:
    """vLLM's asynchronous engine with two workers, as far as adapters need it.

    Attributes:
        silent: whether it never answers.
    """

    renderer = input_processor = None
    model_config = SimpleNamespace(max_model_len=512, model="tiny")

    def __init__(self) -> None:
        self.workers = [Worker(), Worker()]
        self.errored = False
        self.silent = False

    async def collective_rpc(
        self, method: str, timeout: float | None = None, args: tuple[object, ...] = ()
    ) -> list[object]:
        await asyncio.sleep(0)
        if self.errored:
            raise ConnectionError("the engine's process is gone")
        if self.silent:
            await asyncio.Event().wait()
        return [getattr(worker, method)(*args) for worker in self.workers]


SQL = Path("/blobs/1")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long here, but for what has to come."""
    monkeypatch.setattr("loraloom.server.engine.FIRST_PAUSE", 1e-4)
    monkeypatch.setattr("loraloom.server.engine.TELL", 60.0)


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


def held(client: Client) -> list[list[tuple[str, str]]]:
    """What each worker holds."""
    return [list(worker.held.values()) for worker in client.workers]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def empty(client: Client) -> bool:
    """Whether no worker holds or reads anything."""
    return not any(worker.held or worker.reading for worker in client.workers)


async def test_an_adapter_is_known_to_vllm_when_every_worker_holds_it(
    engine: VllmEngine, client: Client, models: OpenAIServingModels
) -> None:
    client.workers[1].rounds = 5
    loading = asyncio.ensure_future(engine.load("sql@1", SQL))
    await until(lambda: held(client)[0])
    assert "sql@1" not in models.lora_requests
    await loading
    assert held(client) == [[("sql@1", "/blobs/1")]] * 2
    request = models.lora_requests["sql@1"]
    assert (request.lora_name, request.lora_path) == ("sql@1", "/blobs/1")
    assert list(client.workers[0].held) == [request.lora_int_id]


async def test_every_load_has_an_identifier_of_its_own(engine: VllmEngine, client: Client) -> None:
    await engine.load("sql@1", SQL)
    await engine.load("date@1", Path("/blobs/2"))
    await engine.unload("sql@1")
    await engine.load("sql@1", Path("/blobs/elsewhere"))
    assert held(client)[0] == [("date@1", "/blobs/2"), ("sql@1", "/blobs/elsewhere")]
    assert sorted(client.workers[0].held) == [2, 3]


async def test_unloading_frees_the_engines_copy_and_the_name(
    engine: VllmEngine, client: Client, models: OpenAIServingModels
) -> None:
    await engine.load("sql@1", SQL)
    await engine.load("sql@2", Path("/blobs/2"))
    await engine.unload("sql@1")
    assert held(client) == [[("sql@2", "/blobs/2")]] * 2
    assert list(models.lora_requests) == ["sql@2"]


async def test_unloading_what_is_not_there(engine: VllmEngine, client: Client) -> None:
    await engine.unload("sql@1")
    assert empty(client)


async def test_vllm_serves_what_it_knows_by_name_and_asks_nobody(
    engine: VllmEngine, models: OpenAIServingModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading at run time needs no permission of vLLM's, since requests find their adapter loaded."""
    from vllm.entrypoints.serve.engine.serving import BaseServing

    monkeypatch.delenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", raising=False)
    await engine.load("sql@1", SQL)
    serving: Any = SimpleNamespace(models=models, request_logger=None, _is_model_supported=models.is_base_model)
    request: Any = SimpleNamespace(model="sql@1")
    assert await BaseServing._check_model(serving, request) is None
    assert BaseServing._maybe_get_adapters(serving, request) is models.lora_requests["sql@1"]


async def test_an_adapter_that_one_worker_refuses(
    engine: VllmEngine, client: Client, models: OpenAIServingModels
) -> None:
    client.workers[1].refuses = True
    with pytest.raises(AdapterNotLoaded, match="cannot load adapter 'sql@1'") as refusal:
        await engine.load("sql@1", SQL)
    assert refusal.value.param == "model"
    assert models.lora_requests == {}
    assert empty(client)
    client.workers[1].refuses = False
    await engine.load("sql@1", SQL)
    assert held(client) == [[("sql@1", "/blobs/1")]] * 2


async def test_loading_that_is_cancelled_leaves_nothing_behind(
    engine: VllmEngine, client: Client, models: OpenAIServingModels
) -> None:
    client.workers[1].rounds = 10**6
    loading = asyncio.ensure_future(engine.load("sql@1", SQL))
    await until(lambda: held(client)[0])
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert empty(client)
    assert models.lora_requests == {}


async def test_an_engine_that_has_died(engine: VllmEngine, client: Client, models: OpenAIServingModels) -> None:
    await engine.load("sql@1", SQL)
    client.errored = True
    assert engine.dead
    with pytest.raises(EngineUnavailable):
        await engine.load("sql@2", SQL)
    assert await engine.tiers() is None
    await engine.unload("sql@1")  # its process is gone, there is nothing to ask it
    assert list(models.lora_requests) == []


async def test_an_engine_that_dies_while_it_reads(engine: VllmEngine, client: Client) -> None:
    client.workers[0].rounds = 10**6
    loading = asyncio.ensure_future(engine.load("sql@1", SQL))
    await until(lambda: client.workers[0].reading)
    client.errored = True
    with pytest.raises(EngineUnavailable):
        await loading


async def test_the_tiers_go_by_name(engine: VllmEngine, client: Client) -> None:
    assert await engine.tiers() == {}
    await engine.load("sql@1", SQL)
    await engine.load("date@1", Path("/blobs/2"))
    client.workers[0].slots = [2, 99]
    client.workers[0].held[99] = ("warmup", "")
    assert await engine.tiers() == {"sql@1": "cpu", "date@1": "slot"}


async def test_a_busy_engine_does_not_tell(engine: VllmEngine, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraloom.server.engine.TELL", 0.01)
    client.silent = True
    assert await engine.tiers() is None


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


@pytest.mark.parametrize(("cpu", "capacity"), [(None, 4), (9, 9)])
def test_the_limits_that_the_engine_was_started_with(cpu: int | None, capacity: int) -> None:
    lora = SimpleNamespace(max_cpu_loras=cpu, max_loras=4, max_lora_rank=16)
    config = SimpleNamespace(lora_config=lora, scheduler_config=SimpleNamespace(max_num_seqs=8))
    client: Any = SimpleNamespace(vllm_config=config)
    assert limits_of(client) == EngineLimits(sequences=8, slots=4, capacity=capacity, rank=16)


def test_vllms_arguments_are_parsed_as_its_own_server_does() -> None:
    from loraloom.server.engine import _parse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = _parse(["--model", "org/model", "--enable-lora", "--served-model-name", "a", "--port", "8123"])
    assert (args.model, args.served_model_name, args.port, args.enable_lora) == ("org/model", ["a"], 8123, True)


class Messages:
    """A handler of `/v1/messages` that raises what it is asked for, with vLLM's own answers to errors."""

    create_error_response = staticmethod(BaseServing.create_error_response)

    async def create_messages(self, request: object, raw_request: object = None) -> str:
        if isinstance(request, Exception):
            raise request
        return f"messages for {raw_request}"

    async def count_tokens(self, request: object, raw_request: object = None) -> str:
        return await self.create_messages(request, raw_request)


@pytest.mark.parametrize("name", ["create_messages", "count_tokens"])
async def test_what_is_wrong_with_messages_is_answered_and_no_error_of_the_server(name: str) -> None:
    state = State({"anthropic_serving_messages": Messages()})
    answer_refusals(state)
    handle = getattr(state.anthropic_serving_messages, name)
    refusal = await handle(ValueError("an empty conversation"), "it")
    assert (refusal.error.code, refusal.error.message) == (400, "an empty conversation")
    assert await handle("a request", raw_request="it") == "messages for it"
    with pytest.raises(RuntimeError, match="broken"):
        await handle(RuntimeError("broken"))


def test_a_vllm_without_messages_has_nothing_to_answer() -> None:
    answer_refusals(State({"anthropic_serving_messages": None}))
    answer_refusals(State({}))


def test_the_metrics_do_not_remember_every_mixture() -> None:
    name = "vllm:lora_requests_info"
    registered = REGISTRY._names_to_collectors.get(name)
    gauge = registered or Gauge(name, "as vLLM registers it", ["running_lora_adapters"])
    assert isinstance(gauge, Gauge)
    try:
        for number in range(100):
            gauge.labels(*[f"{number}*a@1"] * len(gauge._labelnames)).set(1)
        assert len(list(gauge.collect())[0].samples) >= 100
        forget_adapters_in_metrics()
        assert list(gauge.collect())[0].samples == []
    finally:
        if registered is None:
            REGISTRY.unregister(gauge)


class Computing(AsyncLLM):
    """vLLM's client as it is, where an engine would be that has given some outputs and computes on.

    Attributes:
        given: outputs that wait to be read.
        aborted: what it was told to stop.
    """

    def __init__(self, given: list[RequestOutput]) -> None:
        self.given = given
        self.aborted: list[str] = []
        self.log_requests = False

    def __del__(self) -> None:
        """There is nothing to shut down."""

    async def add_request(self, request_id: str, prompt: Any, params: Any, *_: Any, **__: Any) -> Any:
        queue = RequestOutputCollector(params.output_kind, request_id)
        for output in self.given:
            queue.put(output)
        return queue

    async def abort(self, request_id: Any, internal: bool = False) -> None:
        self.aborted.append(request_id)


def output(*tokens: int, index: int = 0, finished: bool = False) -> RequestOutput:
    stats = RequestStateStats(arrival_time=1.0, queued_ts=2.0, scheduled_ts=2.25)
    part = CompletionOutput(index, "", list(tokens), None, None, finish_reason="stop" if finished else None)
    return RequestOutput("r1", None, [1, 2, 3], None, [part], finished, stats, num_cached_tokens=2)


@pytest.mark.parametrize("kind", RequestOutputKind)
async def test_requests_pay_for_every_token_that_vllm_computes(kind: RequestOutputKind) -> None:
    computing: Any = Computing([output(5, 6), output(7 if kind is RequestOutputKind.DELTA else 5, 6, 7, finished=True)])
    meter(computing)
    account = Account("r1")
    token = CURRENT.set(account)
    read = [each async for each in computing.generate([1, 2, 3], SamplingParams(output_kind=kind, n=1), "r1")]
    CURRENT.reset(token)
    assert read[-1].finished
    assert (account.prompt, account.cached, account.engine_queued) == (3, 2, 0.25)
    assert account.output == len(read[-1].outputs[0].token_ids)
    assert computing.aborted == []


async def test_vllm_aborts_what_nobody_reads_any_more() -> None:
    computing: Any = Computing([output(5, 6)])
    meter(computing)
    account = Account("r1")
    token = CURRENT.set(account)
    outputs = computing.generate([1, 2, 3], SamplingParams(output_kind=RequestOutputKind.DELTA), "r1")
    CURRENT.reset(token)
    assert len((await anext(outputs)).outputs[0].token_ids) == 2
    waiting = asyncio.ensure_future(anext(outputs))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert computing.aborted == ["r1"]
    assert (account.prompt, account.output, account.calls) == (3, 2, [])


async def test_vllm_aborts_what_is_left_when_the_account_is_closed() -> None:
    """As when a client takes nothing of its answer: nobody reads on, and nobody ends the generator."""
    computing: Any = Computing([output(5, 6)])
    meter(computing)
    account = Account("r1")
    token = CURRENT.set(account)
    outputs = computing.generate([1, 2, 3], SamplingParams(output_kind=RequestOutputKind.DELTA), "r1")
    CURRENT.reset(token)
    await anext(outputs)
    account.settle()
    await asyncio.sleep(0)
    assert computing.aborted == ["r1"]
    await outputs.aclose()


async def test_who_comes_after_it_has_stopped_accepting_waits_for_the_next_server() -> None:
    """Connections that are open are served on."""
    app = FastAPI()
    app.add_api_route("/", lambda: "first")
    with socket.create_server(("127.0.0.1", 0)) as listening:  # the supervisor's
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        app.state.server = server
        serving = asyncio.ensure_future(server.serve([listening.dup()]))
        async with httpx.AsyncClient(base_url=url, timeout=60) as open_before, httpx.AsyncClient(timeout=60) as late:
            while not server.started:
                await asyncio.sleep(0.01)
            assert (await open_before.get("/")).json() == "first"
            stop_accepting(app.state)
            waits = asyncio.ensure_future(late.get(url))
            assert (await open_before.get("/")).json() == "first"
            listening.setblocking(False)
            connection, _ = await asyncio.get_running_loop().sock_accept(listening)
            connection.close()
            with pytest.raises(httpx.TransportError):  # as it was this test that accepted it
                await waits
        server.should_exit = True
        await serving


def test_a_server_that_does_not_listen_yet_has_nothing_to_stop() -> None:
    stop_accepting(State())
