"""Numbers and flags in a body as the engine's server reads them: `8`, `8.0`, `"+8"`, `"8_0"`; `true`, `"yes"`, `1`."""

from pydantic_core import SchemaValidator, core_schema

_INTEGER = SchemaValidator(core_schema.int_schema())
_FLAG = SchemaValidator(core_schema.bool_schema())
"""As in the models by which it reads a body."""
LONGEST = 100
"""Characters of a number in a text that are read here. The engine's server reads more, such as a thousand zeros before
it, so a longer one is to be refused where it counts."""


def integer(value: object) -> int | None:
    """A whole number; None if it is none, or a text of more than `LONGEST` characters."""
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, str | float) or len(str(value)) > LONGEST:
        return None
    try:
        number: int = _INTEGER.validate_python(value)
    except ValueError:
        return None
    return number


def flag(value: object) -> bool:
    """Whether it says yes; what says neither yes nor no, the engine's server refuses."""
    if value is None:
        return False
    try:
        said: bool = _FLAG.validate_python(value)
    except ValueError:
        return False
    return said
