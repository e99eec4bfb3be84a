"""What a body may not ask of the engine."""

import json
from typing import Any, get_args

import pytest

from loraloom.server.errors import InvalidBody
from loraloom.server.gate.demands import INTEGERS, OF_INTEGERS, check_demands

HUGE = {"type": "array", "minItems": 10**9}


def check(body: dict[str, Any]) -> None:
    check_demands(body, json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"structured_outputs": {"json": HUGE}},
        {"structured_outputs": {"json": json.dumps(HUGE)}},
        {"structured_outputs": {"json": '{"type":"array","min\\u0049tems":1000000000}'}},
        {"structured_outputs": {"json": '{"type":"array","\\u006dinItems\\u0022: 1e9}'}},
        {"structured_outputs": {"json": json.dumps({"const": json.dumps(HUGE, indent=1)})}},
        {"structured_outputs": {"json": json.dumps({"const": '{"min\\u0049tems":1000000000}'})}},
        {"structured_outputs": {"grammar": 'start: %json {"type": "array", "minItems" : 1000000000}'}},
        {"structured_outputs": {"grammar": 'start: %json {"max\\u0049tems":\n1001.5}'}},
        {"structured_outputs": {"structural_tag": json.dumps({"structures": [{"schema": HUGE}]})}},
        {"structured_outputs": {"json": {"properties": {"a": {"anyOf": [{"type": "null"}, HUGE]}}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": HUGE}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"maxItems": 1e9}}}},
        {"text": {"format": {"type": "json_schema", "schema": HUGE}}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": HUGE}}]},
        {"tools": [{"name": "f", "input_schema": HUGE}]},
        {"tools": [{"type": "function", "name": "f", "parameters": HUGE}]},
    ],
)
def test_a_schema_that_would_take_all_memory_is_refused(body: dict[str, Any]) -> None:
    (field,) = body
    with pytest.raises(InvalidBody, match="up to 1000") as refusal:
        check(body)
    assert refusal.value.param == field


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"structured_outputs": None},
        {"structured_outputs": {"json": {"type": "array", "minItems": 1000, "maxItems": 1000.0}}},
        {"structured_outputs": {"json": {"properties": {"minItems": {"type": "integer"}}}}},
        {"structured_outputs": {"choice": ["too many Items", "{"]}},
        {"structured_outputs": {"grammar": 'start: %json {"type": "array", "minItems": 1000}'}},
        {"structured_outputs": {"regex": "a{1000000}" + "\\" * 100_000}},
        {"seed": 1e30, "top_k": "40", "stop_token_ids": ["7"], "n": "many", "user": "9" * 40},
        {"messages": [{"role": "user", "content": json.dumps(HUGE)}]},
        {"seed": 2**64 - 1, "top_k": -(2**63), "temperature": 1e300},
        {"messages": [{"role": "user", "content": "1" * 400}], "stop_token_ids": None, "repetition_detection": "no"},
    ],
)
def test_what_the_engine_can_bear_passes(body: dict[str, Any]) -> None:
    check(body)


@pytest.mark.parametrize("value", [0, " ", [], True, 1.5])
def test_structured_outputs_are_an_object(value: object) -> None:
    with pytest.raises(InvalidBody, match="structured_outputs"):
        check({"structured_outputs": value})


@pytest.mark.parametrize(
    "body",
    [
        {"top_k": 2**70},
        {"a": [{"b": -(2**63) - 1}]},
        {"seed": 2**64},
        {"top_k": "9" * 30},
        {"seed": "9_" * 30 + "9"},
        {"stop_token_ids": [7, "9" * 30]},
        {"repetition_detection": {"max_pattern_size": "9" * 30, "min_count": 2}},
        {"response_format": {"json_schema": {"schema": {"minItems": 10**400}}}},
    ],
)
def test_an_integer_that_the_engine_cannot_be_sent_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidBody, match="64 bits"):
        check(body)


@pytest.mark.parametrize("number", ["0" * 101 + "64", " " * 120 + "64", "64." + "0" * 200, "9" * 200])
@pytest.mark.parametrize("field", ["n", "max_tokens", "stop_token_ids", OF_INTEGERS])
def test_a_number_that_is_too_long_to_be_read_here_is_not_handed_on(field: str, number: str) -> None:
    value: dict[str, Any] = {"n": number, "max_tokens": number, "stop_token_ids": [7, number]}
    with pytest.raises(InvalidBody, match="characters") as refusal:
        check({field: value.get(field, {"max_pattern_size": number})})
    assert refusal.value.param == field


OUTPUT = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "7"}]}


def test_the_output_of_a_tool_in_parts_has_no_id() -> None:
    with pytest.raises(InvalidBody, match="`output` as text, or no `id`") as refusal:
        check({"input": ["x", OUTPUT | {"id": "", "status": "completed"}]})
    assert refusal.value.param == "input"


@pytest.mark.parametrize(
    "items", ["text", None, [], [OUTPUT], [OUTPUT | {"id": None}], [OUTPUT | {"id": "o", "output": "7"}]]
)
def test_other_outputs_of_tools_pass(items: object) -> None:
    check({"input": items})


def test_digits_may_be_escaped() -> None:
    raw = b'{"top_k": "' + b"\\u0039" * 30 + b'"}'
    with pytest.raises(InvalidBody, match="64 bits"):
        check_demands(json.loads(raw), raw)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of vLLM's own imports
def test_every_integer_of_vllms_own_bodies_is_known() -> None:
    from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    found = {
        name
        for model in (ChatCompletionRequest, CompletionRequest, ResponsesRequest, AnthropicMessagesRequest)
        for name, field in model.model_fields.items()
        if takes_an_integer(field.annotation)
    }
    # The first does not reach the engine, the second are checked against the vocabulary, the third have no one type.
    assert found - {"priority", "prompt", "vllm_xargs"} == INTEGERS


def takes_an_integer(annotation: Any) -> bool:
    return annotation is int or any(map(takes_an_integer, get_args(annotation)))
