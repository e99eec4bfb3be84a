"""Requests to a running server: by its OpenAPI schema, and sound ones with a field or two of extreme values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from loraloom.server.errors import RequestRefused
from loraloom.server.gate.paths import OpenPaths
from tests.fuzz.adapter_files import config_texts, weights
from tests.fuzz.jsons import values

TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "n", "best_of")
"""Fields that say how much is computed."""
LARGEST = 4
"""The most that is asked for in each of them."""
PROMPT = "Say hello."
SOUND: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 2},
    "/v1/responses": {"input": PROMPT, "max_output_tokens": 2},
    "/v1/messages": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": PROMPT}]},
    "/tokenize": {"prompt": PROMPT},
    "/detokenize": {"tokens": [1, 2, 3]},
}
"""Paths of the engine's own server, with a body that it takes."""
EXTREMES: tuple[Any, ...] = (
    *(
        0,
        -1,
        1,
        2,
        3,
        2**31 - 1,
        2**31,
        2**32,
        2**40,
        2**63 - 1,
        2**63,
        2**64,
        -(2**31) - 1,
        -(2**63),
        10**30,
        49152,
        49151,
    ),
    *(0.0, -0.0, 0.5, -0.5, 1e-10, 5e-324, 1e10, 3.5e38, -3.5e38, 1e308, -1e308, 1.0, 2.0, 1e-45),
    *(
        "",
        " ",
        "a",
        "\0",
        "auto",
        "required",
        "none",
        "json_object",
        "text",
        "\U0001f600",
        "x" * 3000,
        "{{",
        "{% for %}",
    ),
    *(
        "(",
        "[",
        "(a|aa)+b",
        "(?=a)",
        "[a-z]{1,100000}",
        "root ::= root",
        "root ::= (",
        "::",
        "data:,x",
        "http://127.0.0.1:1/x",
    ),
    *(
        True,
        False,
        None,
        [],
        {},
        [[]],
        [None],
        [""],
        ["a"],
        [0],
        [-1],
        [2**31],
        [2**63],
        [10**30],
        [49152],
        [49151],
        [0.5],
    ),
    *([[1, 2], [3]], [{}], {"a": 1}, {"0": 1e308}, {"-1": 1}, {"49152": 1}, {"99999999999999999999": 1}, {"a": {}}),
    *(["x" * 3000], [" "], ["\0"], list(range(300)), {"type": "json_object"}, {"type": "text"}, {"type": "function"}),
)
SCHEMAS: tuple[Any, ...] = (
    *(
        {"type": "object"},
        {"type": "nothing"},
        {"$ref": "#"},
        {"$ref": "#/x"},
        {"$ref": "http://127.0.0.1:1/x"},
        True,
        [],
    ),
    *(
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "(?=a)"},
        {"enum": []},
        {"anyOf": []},
        {"not": {}},
    ),
    *(
        {"type": "array", "minItems": 10**7},
        {"type": "string", "minLength": 10**9},
        {"type": "integer", "minimum": 2**70},
    ),
    *(
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"\0": {}}},
        {"const": 1e400},
    ),
)
"""JSON schemas for structured output, that are none, or that mean trouble.

(llguidance, which takes what xgrammar refuses, holds a hundred bytes for each of `minItems`: with more of them than
here all memory of the machine would be taken, if the gate lets them through.)
"""
INSIDE: Mapping[str, tuple[Any, ...]] = {
    "response_format": (
        *({"type": "json_schema", "json_schema": {"name": "a", "schema": each}} for each in SCHEMAS),
        *({"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "a"}}, {"type": "structural_tag"}),
        {"type": "structural_tag", "format": {"type": "const_string", "value": ""}},
        {"type": "structural_tag", "structures": [{"begin": "", "schema": {}, "end": ""}], "triggers": [""]},
    ),
    "structured_outputs": (
        *({"json": each} for each in SCHEMAS),
        *({"regex": each} for each in EXTREMES if isinstance(each, str)),
        *({"grammar": each} for each in EXTREMES if isinstance(each, str)),
        *({"choice": each} for each in EXTREMES if isinstance(each, list)),
        *({"json_object": True}, {"structural_tag": "{}"}, {"structural_tag": "x"}, {"regex": "a", "json": {}}),
    ),
    "text": tuple({"format": {"type": "json_schema", "name": "a", "schema": each}} for each in SCHEMAS),
    "tools": tuple(
        [{"type": "function", "function": {"name": name, "parameters": each}}]
        for name in ("a", "", "\0")
        for each in SCHEMAS
    ),
    "messages": tuple(
        [{"role": role, "content": content}]
        for role in ("user", "assistant", "tool", "system", "nobody", "")
        for content in (
            None,
            "",
            "\0",
            [],
            [{}],
            [{"type": "text", "text": "a"}],
            [{"type": "image_url", "image_url": {"url": "data:,"}}],
            [{"type": "text"}],
            {},
            1,
        )
    ),
    "prompt": (
        "",
        [],
        [[]],
        [""],
        [0],
        [-1],
        [49152],
        [2**31],
        [2**63],
        [[0], [49152]],
        ["a", [1]],
        None,
        "x " * 3000,
        [1] * 3000,
    ),
    "tokens": ([], [-1], [49152], [2**31], [2**63], [10**30], [0] * 5000),
    "input": (
        [],
        [{}],
        "",
        None,
        [{"role": "user", "content": None}],
        [{"type": "function_call"}],
        [{"type": "reasoning"}],
    ),
    "logit_bias": ({"-1": 1}, {"49152": 1}, {"2147483648": 1}, {"0": 1e308}, {"0": -3.5e38}, {"a": 1}, {"1.5": 1}),
    "stop_token_ids": ([-1], [49152], [2**31], [2**40], [2**63], [10**30], list(range(5000))),
    "allowed_token_ids": ([], [-1], [49152], [2**31], [2**63], list(range(49152))),
    "bad_words": ([""], [" "], ["\0"], ["a" * 5000], ["\ufffd"]),
    "top_k": (0, -2, 2**31, 2**63, 2**64, 10**30, -(2**63) - 1),
    "stream_interval": (0, 2**31, 2**63, 2**64, 10**30),
    "repetition_detection": tuple(
        {"max_pattern_size": each, "min_pattern_size": 1, "min_count": 2} for each in (1, 2**40, 2**64, 10**30)
    ),
    "stream_options": ({"include_usage": True}, {"continuous_usage_stats": True}, {"include_usage": 1, "x": 1}),
}
"""Values of single fields, that reach deeper than any."""


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        method, path: of the request.
        json: its body, where it is JSON.
        files: parts of a form: (field, file name, content), where it is one.
        form: further fields of the form.
        params: the query.
        headers: further ones.
        kind: of what family it is, for the table.
    """

    method: str
    path: str
    kind: str
    json: Any = None
    files: Sequence[tuple[str, str, bytes]] = ()
    form: Mapping[str, str] = field(default_factory=dict)
    params: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def tamed(path: str, body: Any, model: str | None) -> Any:
    """A body that asks for little, and mostly of a model that is there."""
    if not isinstance(body, dict):
        return body
    said = (key for key in TOKENS if type(body.get(key)) is int and body[key] > LARGEST)
    body = {**body, **dict.fromkeys(said, LARGEST)}
    unsaid = [key for key in TOKENS if key in SOUND.get(path, ()) and body.get(key) is None]
    body |= dict.fromkeys(unsaid, 2)
    return body if model is None else {**body, "model": model}


def operations(document: Mapping[str, Any]) -> list[Any]:
    """The operations of a schema that are open."""
    schema = schemathesis.openapi.from_dict(dict(document))
    found = [result.ok() for result in schema.get_all_operations()]
    return [each for each in found if _is_open(each.method.upper(), each.path)]


def _is_open(method: str, path: str) -> bool:
    try:
        OpenPaths().find(method, path)
    except RequestRefused:
        return False
    return True


def by_schema(operation: Any, models: st.SearchStrategy[str | None]) -> st.SearchStrategy[Call]:
    """Requests that follow the schema, or break it in one place."""
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])
    return st.builds(_from_case, cases, models)


def _from_case(case: Case, model: str | None) -> Call:
    body = None if repr(case.body) == "NOT_SET" or not _plain(case.body) else tamed(case.path, case.body, model)
    headers = {key: str(value) for key, value in (case.headers or {}).items() if _sendable(str(value))}
    return Call(
        case.method.upper(), case.formatted_path, "schema", body, params=dict(case.query or {}), headers=headers
    )


def _plain(body: object) -> bool:
    try:
        json.dumps(body)
    except (TypeError, ValueError):
        return False
    return True


def _sendable(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


def properties(document: Mapping[str, Any], path: str) -> list[str]:
    """The fields that a path's body can have, by the schema."""
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return sorted(_properties(document, content))


def _properties(document: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    if "$ref" in schema:
        return _properties(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    return set(schema.get("properties", ())).union(*(_properties(document, each) for each in several))


@st.composite
def extreme(draw: st.DrawFn, document: Mapping[str, Any], path: str, models: st.SearchStrategy[str | None]) -> Call:
    """A sound request, with one field or a few of values that may surprise."""
    known = properties(document, path)
    body = dict(SOUND[path])
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        name = draw(st.sampled_from(known))
        inside = st.sampled_from(INSIDE[name]) if INSIDE.get(name) else st.sampled_from(EXTREMES)
        body[name] = draw(st.one_of(inside, inside, st.sampled_from(EXTREMES), values))
    return Call("POST", path, "extreme", tamed(path, body, draw(models)))


@st.composite
def uploads(draw: st.DrawFn) -> Call:
    """An adapter's files, or almost, to be published."""
    given = draw(weights())
    content = given.head + bytes(min(given.size, 10**6) - min(len(given.head), given.size, 10**6))
    files = [("files", "adapter_config.json", draw(config_texts)), ("files", "adapter_model.safetensors", content)]
    names = st.sampled_from(("fuzz", "fuzz/a", "", "../x", "smollm2")) | st.text(max_size=5).filter(_sendable)
    form = {"name": draw(names), **draw(st.fixed_dictionaries({}, optional=_form))}
    return Call(
        "POST", "/v1/adapters", "upload", files=draw(st.permutations(files))[: draw(st.integers(1, 2))], form=form
    )


_form = {
    key: st.sampled_from(("", "1", "x", "true", "1e400", "-1")) for key in ("tag", "allow_noop", "rank", "max_kl", "y")
}
