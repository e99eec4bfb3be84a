"""Options that mean nothing are refused, and the errors are values as well as ours."""

from typing import Any

import pytest

from loraloom.adapters.convert.options import DEFAULTS, Options
from loraloom.adapters.errors import AdapterError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 8, "energy": 0.9}, "not both"),
        ({"rank": 0}, "from 1 to 256"),
        ({"rank": 257}, "from 1 to 256"),
        ({"rank": 9, "max_rank": 8}, "from 1 to 8"),
        ({"max_rank": 0}, "at least 1"),
        ({"energy": 0.0}, "above 0"),
        ({"energy": 1.01}, "at most 1"),
        ({"energy": float("nan")}, "above 0"),
        ({"max_kl": -0.1}, "not negative"),
        ({"max_kl": float("nan")}, "not negative"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Options(**fields)
    assert isinstance(caught.value, AdapterError)


def test_the_limits_themselves_are_allowed() -> None:
    assert Options(rank=256).rank == 256
    assert Options(energy=1.0, max_kl=0.0) != DEFAULTS


def test_the_default_limit_is_a_tenth_of_what_the_adapter_does_and_no_more_than_its_cap() -> None:
    assert DEFAULTS.kl_limit(0.02) == pytest.approx(0.002)
    assert DEFAULTS.kl_limit(2.0) == 0.05
    assert Options(max_kl=0.3).kl_limit(0.02) == 0.3
    assert Options(max_kl=0.0).kl_limit(2.0) == 0.0
