"""Requests that have ended."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from loraloom.server.access.access import Access, Role
from loraloom.server.observe.account import Account

Ended: TypeAlias = Callable[..., Account]


def ended_request(key: str = "team-a", model: str = "sql@4", **fields: Any) -> Account:
    """An answered request of two seconds: its first token came after half of one, and three more after 0.1 s each."""
    account = Account("r1", "POST", "/v1/chat/completions", Access(key, Role.INFER), model, at=1_780_000_000.25)
    account.began, account.admitted, account.first, account.ended = 100.0, 100.01, 100.5, 102.0
    account.engine_queued = 0.2
    account.intervals.add(0.1, 3)
    account.prompt, account.cached, account.output = 12, 8, 4
    account.status, account.ending, account.complete = 200, "answered", True
    for name, value in fields.items():
        setattr(account, name, value)
    return account


@pytest.fixture
def ended() -> Ended:
    """Makes requests that have ended."""
    return ended_request
