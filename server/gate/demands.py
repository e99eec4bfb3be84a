"""What a body asks of the engine that it cannot give, or not without harm to all others.

Each of these was found by asking vLLM (0.32) for it. A schema with `"minItems": 1000000000` takes all memory of the
machine where llguidance reads it (`--structured-outputs-config.backend guidance`, or `auto`): it writes every item
down, also where the schema is JSON in a string, or within a grammar after `%json`. (Repetitions in expressions and
grammars, and the lengths of strings, take next to nothing there.) Integers of more than 64 bits,
`structured_outputs` that are no object, and outputs of tools in parts with an `id` are answered 500.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from loraloom.server.errors import InvalidBody
from loraloom.server.lax import LONGEST, integer

MOST_ITEMS, MOST_OF_ALL = 1000, 20_000
"""How many items a schema may demand of an array, and of all of its arrays together."""
COUNTS = ("minItems", "maxItems")
SCHEMAS = ("structured_outputs", "response_format", "text", "tools", "functions", "output_config")
"""The fields in which a body can have schemas, also as JSON within a string."""
LEAST, MOST = -(2**63), 2**64 - 1
"""The integers that fit into what the engine's server sends to its engine."""
INTEGERS = frozenset(
    (
        "allowed_token_ids",
        "logprob_token_ids",
        "logprobs",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "max_tool_calls",
        "min_tokens",
        "n",
        "prompt_logprobs",
        "routed_experts_prompt_start",
        "seed",
        "stop_token_ids",
        "stream_interval",
        "thinking_token_budget",
        "top_k",
        "top_logprobs",
        "truncate_prompt_tokens",
    )
)
"""The fields in which the engine's server reads text as an integer, too."""
OF_INTEGERS = "repetition_detection"
"""The one field with an object of such."""
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG_NUMBER = b"0" * 19
_GAP = r"(?:\s|\\+[nrt])*"
_COUNT = re.compile(rf'((?:min|max)Items)\\*"{_GAP}:{_GAP}(\d+(?:\.\d+)?(?:[eE]\+?\d+)?)')
"""In a text, within which quotes and spaces may be escaped."""
_ESCAPED = re.compile(r"(?<!\\)\\+u00([0-7][0-9a-fA-F])")
"""A letter of ASCII as JSON may write it, in a text that may be quoted once more."""


def check_demands(body: Mapping[str, Any], raw: bytes) -> None:
    """Refuse what the engine's server cannot bear.

    Args:
        body: as the client sent it.
        raw: the same before it was parsed.

    Raises:
        InvalidBody: with the field.
    """
    wanted = body.get("structured_outputs")
    if wanted is not None and not isinstance(wanted, dict):
        raise InvalidBody('`structured_outputs` must be an object, such as {"json": {…}}', param="structured_outputs")
    for field, number in _integers(body):
        if isinstance(number, str) and len(number) > LONGEST:
            raise InvalidBody(f"`{field}` takes an integer, not a text of {len(number):,} characters", param=field)
        _check_length(integer(number))
    if _LONG_NUMBER in raw.translate(_DIGITS):
        for value in _within(body):
            _check_length(value)
    for field in SCHEMAS:
        if isinstance(body.get(field), dict | list):
            _check_counts(field, body[field])
    _check_tool_outputs(body.get("input"))


def _check_tool_outputs(items: object) -> None:
    """With an `id`, the engine's server takes a tool's output for one of its own, and fails at the parts of it."""
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict) or item.get("type") != "function_call_output":
            continue
        if isinstance(item.get("output"), list) and item.get("id") is not None:
            raise InvalidBody("a `function_call_output` has its `output` as text, or no `id`", param="input")


def _check_counts(field: str, schema: object) -> None:
    total = 0.0
    for value in _within(schema):
        for name, count in _counts(value):
            if count > MOST_ITEMS:
                raise InvalidBody(
                    f"a schema in `{field}` has {name} {count:g}; this server takes up to {MOST_ITEMS}", param=field
                )
            total += max(0.0, count)
    if total > MOST_OF_ALL:
        raise InvalidBody(
            f"the schemas in `{field}` demand {total:,.0f} items of arrays in all; this server takes up to "
            f"{MOST_OF_ALL:,}",
            param=field,
        )


def _counts(value: object) -> Iterator[tuple[str, float]]:
    """How many items an object demands, or a text: a schema as JSON, or a grammar with such in it."""
    if isinstance(value, dict):
        for name in COUNTS:
            if isinstance(count := value.get(name), int | float):
                yield name, count
    elif isinstance(value, str):
        for found in _COUNT.finditer(_ESCAPED.sub(lambda escaped: chr(int(escaped[1], 16)), value)):
            yield found[1], float(found[2])


def _integers(body: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Every value that the engine's server reads as an integer, also where it is a text, with its field."""
    for field in INTEGERS & body.keys():
        yield from ((field, number) for number in (body[field] if isinstance(body[field], list) else [body[field]]))
    if isinstance(several := body.get(OF_INTEGERS), dict):
        yield from ((OF_INTEGERS, number) for number in several.values())


def _check_length(value: object) -> None:
    if isinstance(value, int) and not LEAST <= value <= MOST:
        raise InvalidBody("the body has an integer of more than 64 bits: nothing here takes one")


def _within(value: object) -> Iterator[object]:
    """A value, and all values in it."""
    inside = [value]
    while inside:
        value = inside.pop()
        yield value
        if isinstance(value, dict):
            inside += value.values()
        elif isinstance(value, list):
            inside += value
