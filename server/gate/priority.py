"""Which place in the engine's queue a request may ask for: behind others, not before them."""

from collections.abc import Mapping
from typing import Any

from loraloom.server.errors import HeaderRefused, InvalidBody
from loraloom.server.gate.exchange import Exchange

HEADER = b"x-vllm-priority"
"""By which vLLM would let a request say it, too."""


def check_priority(exchange: Exchange, body: Mapping[str, Any]) -> None:
    """Refuse a request that would be computed before those that ask for nothing.

    Raises:
        HeaderRefused: it says its priority in a header.
        InvalidBody: its field `priority` is below 0, which is what others have, or no integer.
    """
    if exchange.header(HEADER) is not None:
        raise HeaderRefused(f"say how long a request can wait by the field `priority`, not by {HEADER.decode()}")
    wanted = body.get("priority", 0)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        raise InvalidBody("`priority` is an integer from 0: the larger, the later", param="priority")
