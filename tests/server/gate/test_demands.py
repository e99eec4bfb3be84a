"""What a body may not ask of the engine."""

import json
from typing import Any

import pytest

from loraloom.server.errors import InvalidBody
from loraloom.server.gate.demands import check_demands

HUGE = {"type": "array", "minItems": 10**9}


def check(body: dict[str, Any]) -> None:
    check_demands(body, json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"structured_outputs": {"json": HUGE}},
        {"structured_outputs": {"json": json.dumps(HUGE)}},
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
        {"messages": [{"role": "user", "content": json.dumps(HUGE)}]},
        {"seed": 2**64 - 1, "top_k": -(2**63), "temperature": 1e300},
        {"messages": [{"role": "user", "content": "1" * 40}]},
    ],
)
def test_what_the_engine_can_bear_passes(body: dict[str, Any]) -> None:
    check(body)


@pytest.mark.parametrize("value", [0, " ", [], True, 1.5])
def test_structured_outputs_are_an_object(value: object) -> None:
    with pytest.raises(InvalidBody, match="structured_outputs"):
        check({"structured_outputs": value})


@pytest.mark.parametrize("body", [{"top_k": 2**70}, {"a": [{"b": -(2**63) - 1}]}, {"seed": 2**64}])
def test_an_integer_that_the_engine_cannot_be_sent_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidBody, match="64 bits"):
        check(body)
