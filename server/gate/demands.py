"""What a body asks of the engine that it cannot give, or not without harm to all others.

Each of these was found by asking vLLM (0.32) for it. A schema with `"minItems": 1000000000` takes all memory of the
machine: what xgrammar refuses is handed on to llguidance, which writes every item down. Integers of more than 64 bits
and `structured_outputs` that are no object are answered with 500.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from loraloom.server.errors import InvalidBody

MOST_ITEMS = 1000
"""How many items a schema may demand of an array."""
COUNTS = ("minItems", "maxItems")
SCHEMAS = ("structured_outputs", "response_format", "text", "tools", "functions", "output_config")
"""The fields in which a body can have schemas, also as JSON within a string."""
LEAST, MOST = -(2**63), 2**64 - 1
"""The integers that fit into what the engine's server sends to its engine."""
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG_NUMBER = b"0" * 19


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
    for field in SCHEMAS:
        if isinstance(body.get(field), dict | list):
            _check_counts(field, body[field])
    if _LONG_NUMBER in raw.translate(_DIGITS) and any(_is_too_long(value) for value in _within(body)):
        raise InvalidBody("the body has an integer of more than 64 bits: nothing here takes one")


def _check_counts(field: str, schema: object) -> None:
    for value in _within(schema):
        if isinstance(value, str) and "Items" in value:
            _check_counts(field, _parsed(value))
        if not isinstance(value, dict):
            continue
        for name in COUNTS:
            count = value.get(name)
            if isinstance(count, int | float) and count > MOST_ITEMS:
                raise InvalidBody(
                    f"a schema in `{field}` has {name} {count:g}; this server takes up to {MOST_ITEMS}", param=field
                )


def _parsed(text: str) -> object:
    """What a string says in JSON; itself is no schema."""
    try:
        return from_json(text)
    except ValueError:
        return None


def _is_too_long(value: object) -> bool:
    return isinstance(value, int) and not LEAST <= value <= MOST


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
