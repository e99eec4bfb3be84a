"""The OpenAI and Anthropic surface, through their own clients, with adapters."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from anthropic import Anthropic
from openai import OpenAI

from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import BASE, ORIGIN, Server

pytestmark = pytest.mark.engine

ADAPTER = demo_adapters()[0]
PROMPT, EXPECTED = ADAPTER.examples[0]
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture
def openai(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_chat(openai: OpenAI) -> None:
    reply = openai.chat.completions.create(model=ADAPTER.name, messages=MESSAGES, temperature=0)
    assert reply.choices[0].message.content == EXPECTED
    assert reply.model == f"{ADAPTER.name}@1"


def test_chat_streams(openai: OpenAI) -> None:
    chunks = list(openai.chat.completions.create(model=ADAPTER.name, messages=MESSAGES, temperature=0, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == EXPECTED
    assert {chunk.model for chunk in chunks} == {f"{ADAPTER.name}@1"}
    assert len(chunks) >= 2  # the role, and tokens, of which several may come together


def test_completions_with_logprobs(openai: OpenAI) -> None:
    reply = openai.completions.create(
        model=BASE, prompt="The capital of France is", max_tokens=4, temperature=0, logprobs=2
    )
    assert "Paris" in reply.choices[0].text
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert all(value is not None and value <= 0 for value in logprobs.token_logprobs)


def test_chat_logprobs(openai: OpenAI) -> None:
    reply = openai.chat.completions.create(
        model=ADAPTER.name, messages=MESSAGES, temperature=0, logprobs=True, top_logprobs=3
    )
    content = reply.choices[0].logprobs
    assert content is not None
    assert content.content is not None
    assert all(len(token.top_logprobs) == 3 for token in content.content)
    assert all(token.logprob == max(top.logprob for top in token.top_logprobs) for token in content.content)


def test_responses(openai: OpenAI) -> None:
    reply = openai.responses.create(model=ADAPTER.name, input=PROMPT, temperature=0)
    assert reply.output_text == EXPECTED
    assert reply.model == f"{ADAPTER.name}@1"


def test_json_schema(openai: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    reply = openai.chat.completions.create(
        model=ADAPTER.name,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    assert json.loads(reply.choices[0].message.content or "")["city"] in {"Paris", "Rome"}


def test_tools(openai: OpenAI) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    reply = openai.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        temperature=0,
        max_tokens=64,
        tools=[{"type": "function", "function": {"name": "weather", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    calls = reply.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "weather"  # type: ignore[union-attr]
    assert json.loads(calls[0].function.arguments)  # type: ignore[union-attr]


def test_anthropic_messages(server: Server) -> None:
    greedy = {"temperature": 0}
    with Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        reply = client.messages.create(model=ADAPTER.name, max_tokens=64, messages=MESSAGES, extra_body=greedy)  # type: ignore[arg-type]
    assert reply.content[0].text == EXPECTED  # type: ignore[union-attr]
    assert reply.model == f"{ADAPTER.name}@1"


def test_models(openai: OpenAI, filled_store: Path) -> None:
    listed = {model.id for model in openai.models.list()}
    assert {BASE, *(adapter.name for adapter in demo_adapters())} <= listed
    assert openai.models.retrieve(ADAPTER.name).model_dump()["root"] == f"{ADAPTER.name}@1"
    assert openai.models.retrieve(BASE).id == BASE


def test_tokenize(server: Server) -> None:
    with server.client() as client:
        tokens = client.post("/tokenize", json={"model": ADAPTER.name, "prompt": "hello"}).json()["tokens"]
        text = client.post("/detokenize", json={"model": ADAPTER.name, "tokens": tokens}).json()["prompt"]
    assert text == "hello"


def test_metrics_and_health_are_open(server: Server) -> None:
    with server.client() as client:
        assert client.get("/health").status_code == 200
        assert client.get("/version").json()["version"]
        assert "vllm:" in client.get("/metrics").text


def test_cross_origin_preflight_passes(server: Server) -> None:
    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    reply = server.request("OPTIONS", "/v1/chat/completions", headers=headers)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == ORIGIN
