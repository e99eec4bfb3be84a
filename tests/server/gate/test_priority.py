"""A request may wait longer than others, and not be computed before them."""

from typing import Any

import pytest

from loraloom.server.errors import HeaderRefused, InvalidBody
from loraloom.server.gate.exchange import Exchange, Message
from loraloom.server.gate.priority import check_priority


async def nothing() -> Message:
    return {}


async def nowhere(message: Message) -> None: ...


def exchange(**headers: str) -> Exchange:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Exchange({"headers": pairs}, nothing, nowhere)


@pytest.mark.parametrize("body", [{}, {"priority": 0}, {"priority": 100}, {"priority": 2**62}])
def test_behind_others(body: dict[str, Any]) -> None:
    check_priority(exchange(accept="*/*"), body)


@pytest.mark.parametrize("wanted", [-1, -(2**63), "-1", "1", -0.5, 1.0, True, None, [1]])
def test_not_before_them(wanted: object) -> None:
    with pytest.raises(InvalidBody) as refusal:
        check_priority(exchange(), {"priority": wanted})
    assert refusal.value.param == "priority"


def test_not_by_a_header_either() -> None:
    with pytest.raises(HeaderRefused, match="field `priority`"):
        check_priority(exchange(x_vllm_priority="5"), {})
