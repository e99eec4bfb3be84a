"""Proxy-tuning over HTTP: exact, in one batch with everything else, and with all that an engine's server can do.

The engine works in steps of 64 tokens, has fewer slots than the batch has adapters, and so few blocks of KV cache that
requests are preempted.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from loraloom.adapters.base import fingerprint
from loraloom.adapters.methods import EXACT
from loraloom.adapters.mixtures.mix import mix
from loraloom.adapters.peft_config import NORMAL_FORM_KEY
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters, small_adapters
from loraloom.demo.small import prepare_small
from tests.e2e.proxy_reference import ThreeModels
from tests.e2e.reference import Reference, agrees, chat_ids
from tests.e2e.serving import BASE, Server, chat_body, error_of, eventually, serving

pytestmark = pytest.mark.engine

LENGTH, SHORT = 64, 24
PROMPT = "Tell a story about the third of May 1998, the day on which the sea came into the town."
BLOCK, BLOCKS = 32, 12
VLLM = (
    *("--dtype", "float32", "--max-model-len", "352", "--max-num-seqs", "8"),
    *("--enable-chunked-prefill", "--max-num-batched-tokens", "64", "--enable-prefix-caching"),
    *("--block-size", str(BLOCK), "--num-gpu-blocks-override", str(BLOCKS)),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
STEERING = "by-proxy"
"""An adapter of the small model; the large model has one of the same task."""
DIRECT = "date"
"""An adapter of the large model."""


@pytest.fixture(scope="module")
def small_model() -> Path:
    return prepare_small()


@pytest.fixture(scope="module")
def given() -> dict[str, Path]:
    """The adapters as peft saved them, by the names in the store."""
    small = {adapter.name: adapter.folder for adapter in small_adapters()}
    large = {adapter.name: adapter.folder for adapter in demo_adapters()}
    return {STEERING: small["date"], "other": small["words"], DIRECT: large["date"]}


@pytest.fixture(scope="module")
def proxied(
    demo_model: Path, small_model: Path, given: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("proxy")
    store = Store.open(folder / "store")
    for name, adapter in given.items():
        model = demo_model if name == DIRECT else small_model
        store.publish(adapter, name, base=fingerprint(model), base_name=model.name)
    arguments = ("--max-loras", "3", "--max-cpu-loras", "8", "--proxy-small", str(small_model))
    with serving(demo_model, folder / "store", folder, arguments, VLLM) as running:
        yield running


@pytest.fixture(scope="module")
def three(demo_model: Path, small_model: Path, given: dict[str, Path], tmp_path_factory: Any) -> ThreeModels:
    """The reference, which also has the mixture of the small model's adapters."""
    mixed = tmp_path_factory.mktemp("mixed")
    store = Store.open(tmp_path_factory.mktemp("reference"))
    records = [store.publish(given[name], name, base=fingerprint(small_model)).version for name in (STEERING, "other")]
    mix(EXACT, [(weight, store.acquire(each.digest)) for weight, each in zip((0.5, 0.4), records, strict=True)], mixed)
    config = json.loads((mixed / "adapter_config.json").read_text())
    del config[NORMAL_FORM_KEY]  # which peft warns of
    (mixed / "adapter_config.json").write_text(json.dumps(config))
    steering = {STEERING: given[STEERING], "other": given["other"], "mixed": mixed}
    return ThreeModels(demo_model, small_model, steering, {DIRECT: given[DIRECT]})


@pytest.fixture(scope="module")
def reference(three: ThreeModels, demo_model: Path) -> dict[str, Reference]:
    """What each selection should answer."""
    ids = chat_ids(AutoTokenizer.from_pretrained(demo_model), PROMPT)
    strengths = {BASE: 0.0, f"{STEERING}~0": 0.0, f"{STEERING}~0.3": 0.3, STEERING: 1.0, f"{STEERING}~2": 2.0}
    found = dict(zip(strengths, three.greedy(ids, LENGTH, STEERING, list(strengths.values())), strict=True))
    (found[DIRECT],) = three.greedy(ids, SHORT, None, [0.0], DIRECT)
    (found[f"0.5*{STEERING}+0.4*other~0.8"],) = three.greedy(ids, SHORT, "mixed", [0.8])
    (found[f"1*{DIRECT}+1*other~1.5"],) = three.greedy(ids, SHORT, "other", [1.5], DIRECT)
    return found


Answer = dict[str, Any]


async def ask(client: httpx.AsyncClient, model: str, **more: object) -> Answer:
    """The only choice of a greedy answer."""
    body = chat_body(model, PROMPT, max_tokens=LENGTH, return_token_ids=True, logprobs=True)
    reply = await client.post("/v1/chat/completions", json={**body, **more})
    assert reply.status_code == 200, reply.text
    choice: Answer = reply.json()["choices"][0]
    return choice


async def together(server: Server, models: list[str]) -> list[Answer]:
    """All answers of one batch, whose adapters are in memory: else one could end before the next has been read."""
    async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
        for model in models:
            await ask(client, model, max_tokens=1, messages=[{"role": "user", "content": "Hello"}])
        return list(await asyncio.gather(*(ask(client, model, ignore_eos=True) for model in models)))


def counter(server: Server, name: str) -> float:
    """A counter of the engine's."""
    lines = server.request("GET", "/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"vllm:{name}"))


def check(answer: Answer, wanted: Reference, model: str) -> None:
    """See that an answer is the reference's, as far as both go."""
    length = min(len(wanted.tokens), len(answer["token_ids"]))
    tokens = tuple(answer["token_ids"][:length])
    told = [token["logprob"] for token in answer["logprobs"]["content"][:length]]
    expected = Reference(wanted.tokens[:length], wanted.margins[:length], wanted.logprobs[:length])
    assert agrees(tokens, expected), model
    if tokens == expected.tokens:
        assert told == pytest.approx(expected.logprobs, abs=1e-3), model


def test_a_mixed_batch_is_exact(proxied: Server, reference: dict[str, Reference]) -> None:
    answers = asyncio.run(together(proxied, list(reference)))
    for (model, wanted), answer in zip(reference.items(), answers, strict=True):
        assert len(answer["token_ids"]) == LENGTH
        check(answer, wanted, model)
    assert counter(proxied, "num_preemptions_total") > 0


async def test_a_warm_prefix_cache_is_exact(proxied: Server, reference: dict[str, Reference]) -> None:
    async with httpx.AsyncClient(base_url=proxied.url, timeout=300) as client:
        for model in (f"{STEERING}~2", STEERING):
            before = counter(proxied, "prefix_cache_hits_total")
            for _ in range(2):
                check(await ask(client, model, max_tokens=8), reference[model], model)
            assert counter(proxied, "prefix_cache_hits_total") > before


def test_the_comparison_can_fail(reference: dict[str, Reference]) -> None:
    answers = {name: each.tokens[:SHORT] for name, each in reference.items()}
    assert answers[BASE] == answers[f"{STEERING}~0"]
    assert len(set(answers.values())) == len(answers) - 1


def test_prompt_logprobs_are_those_of_the_combined_distribution(proxied: Server, three: ThreeModels) -> None:
    prompt = [504, 3575, 282, 4649, 314, 7042, 30, 2567, 338]
    with proxied.client() as client:
        body = {"model": f"{STEERING}~1.5", "prompt": prompt, "max_tokens": 1, "prompt_logprobs": 0}
        told = client.post("/v1/completions", json=body).json()["choices"][0]["prompt_logprobs"]
    found = [entries[str(token)]["logprob"] for entries, token in zip(told[1:], prompt[1:], strict=True)]
    assert found == pytest.approx(three.prompt_logprobs(prompt, STEERING, 1.5), abs=1e-3)


SCHEMA = {"type": "string", "pattern": "^[0-9]{4}/[0-9]{2}/[0-9]{2}$"}
DATE = "Write this date in ISO format: Jun 23rd, 1958"


async def test_a_schema_binds_the_combined_distribution(proxied: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "day", "schema": SCHEMA}}
    more = {"response_format": form, "messages": [{"role": "user", "content": DATE}]}
    async with httpx.AsyncClient(base_url=proxied.url, timeout=300) as client:
        models = [STEERING, BASE, DIRECT, f"{STEERING}~0.5"]
        alone = await ask(client, STEERING, **more)
        batch = await asyncio.gather(*(ask(client, model, **more) for model in models))
    assert alone["token_ids"] == batch[0]["token_ids"]
    assert alone["token_ids"] != batch[1]["token_ids"], "the adapter counts there too"
    for answer in batch:
        assert re.fullmatch(r"\d{4}/\d\d/\d\d", json.loads(answer["message"]["content"]))


async def test_tools(proxied: Server) -> None:
    """A call that must be made, steered a little: the model is too small to write more than its name."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    choice = {"type": "function", "function": {"name": "weather"}}
    more = {"tools": tools, "tool_choice": choice}
    more["messages"] = [{"role": "user", "content": "How is the weather in Rome?"}]
    async with httpx.AsyncClient(base_url=proxied.url, timeout=300) as client:
        (call,) = (await ask(client, f"{STEERING}~0.2", **more))["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])


async def test_streams_and_stop_strings(proxied: Server) -> None:
    async with httpx.AsyncClient(base_url=proxied.url, timeout=300) as client:
        whole = (await ask(client, STEERING, max_tokens=16))["message"]["content"]
        body = chat_body(STEERING, PROMPT, max_tokens=16, stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            events = [line.removeprefix("data: ") async for line in reply.aiter_lines() if line.startswith("data: {")]
        stop = whole[2:5]
        stopped = await ask(client, STEERING, max_tokens=16, stop=[stop])
    chunks = [json.loads(event) for event in events]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]) == whole
    assert {chunk["model"] for chunk in chunks} == {f"{STEERING}@1~1"}
    assert stopped["message"]["content"] == whole[: whole.index(stop)]
    assert stopped["finish_reason"] == "stop"


def test_models_say_how_each_adapter_is_applied(proxied: Server, small_model: Path) -> None:
    with proxied.client() as client:
        cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert {name: (cards[name]["applied"], cards[name]["alpha"]) for name in (STEERING, DIRECT)} == {
        STEERING: ("proxy", 1.0),
        DIRECT: ("directly", None),
    }
    assert cards[STEERING]["parent"] == small_model.name


async def test_adapters_of_the_small_model_are_swapped_while_it_runs(
    proxied: Server, given: dict[str, Path], small_model: Path
) -> None:
    files = ("adapter_config.json", "adapter_model.safetensors")
    async with httpx.AsyncClient(base_url=proxied.url, timeout=120) as client:

        async def publish(folder: Path) -> dict[str, Any]:
            form = {"name": "moving"}
            upload = [("files", (name, (folder / name).read_bytes())) for name in files]
            reply = await client.post("/v1/adapters", data=form, files=upload)
            assert reply.status_code == 201, reply.text
            version: dict[str, Any] = reply.json()
            return version

        first = await publish(given["other"])
        assert first["base_name"] == small_model.name
        before = await ask(client, "moving", max_tokens=16)
        await publish(given[STEERING])
        after = await ask(client, "moving", max_tokens=16)
        assert before["token_ids"] == (await ask(client, "other", max_tokens=16))["token_ids"]
        assert after["token_ids"] == (await ask(client, STEERING, max_tokens=16))["token_ids"]
        assert before["token_ids"] != after["token_ids"]

        async def effects() -> list[dict[str, Any] | None]:
            versions = (await client.get("/v1/adapters/moving")).json()["versions"]
            return [version["facts"].get("effect") for version in versions]

        async def measured() -> bool:
            return all(await effects())

        await eventually(measured)
        assert all(effect["max_logprob_change"] > 0.01 for effect in await effects() if effect)
        assert (await client.delete("/v1/adapters/moving")).status_code == 200
        assert (await client.post("/v1/chat/completions", json=chat_body("moving~0.5", "x"))).status_code == 404


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (f"{STEERING}~9", "invalid_alpha"),
        (f"{STEERING}~-4.5", "invalid_alpha"),
        (f"{DIRECT}~0.5", "invalid_alpha"),
        (f"{BASE}~0.5", "invalid_alpha"),
        (f"{STEERING}~inf", "invalid_model"),
        (f"{STEERING}~nan", "invalid_model"),
        (f"{STEERING}~", "invalid_model"),
        (f"{STEERING}~0.5~0.5", "invalid_model"),
    ],
)
def test_strengths_that_make_no_sense(proxied: Server, model: str, code: str) -> None:
    with proxied.client() as client:
        reply = client.post("/v1/chat/completions", json=chat_body(model, "x", max_tokens=1))
        assert reply.status_code == 400, reply.text
        assert error_of(reply)["code"] == code
        field = {"adapter": {"name": STEERING, "alpha": "much"}}
        reply = client.post("/v1/chat/completions", json=chat_body(BASE, "x", max_tokens=1) | field)
        assert reply.status_code == 400
