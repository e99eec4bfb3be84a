"""Numbers and flags as the engine's server reads them."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from loraloom.server.lax import LONGEST, flag, integer


class Body(BaseModel):
    """As vLLM's own."""

    n: int = 1
    use_beam_search: bool = False


@pytest.mark.parametrize(
    "value", [8, 8.0, "8", "+8", "8_0", " 8 ", "8.0", "-3", 1e30, "9" * 40, True, None, 8.5, "eight", [8], {}, "1e3"]
)
def test_numbers_are_those_of_pydantic(value: Any) -> None:
    try:
        expected = Body(n=value).n
    except ValidationError:
        expected = None
    assert integer(value) == expected


def test_a_text_that_takes_long_to_read_is_none() -> None:
    assert integer("9" * 4000) is None
    assert integer("0" * (LONGEST - 1) + "8") == 8


@pytest.mark.parametrize("value", [True, False, "true", "false", "no", "yes", "0", "1", 0, 1, "on", "off", 1.0])
def test_flags_are_those_of_pydantic(value: Any) -> None:
    assert flag(value) is Body(use_beam_search=value).use_beam_search


@pytest.mark.parametrize("value", [None, "maybe", 2, [], {}])
def test_what_is_refused_says_nothing(value: Any) -> None:
    assert flag(value) is False
