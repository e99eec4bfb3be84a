"""Exchanges and the order of stages."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from loraloom.server.gate.exchange import Exchange, Handler, Stage, in_order
from loraloom.server.observe.account import Account


async def unused(*_: Any) -> Any:
    raise AssertionError("nothing here receives or sends")


def exchange(*headers: tuple[bytes, bytes]) -> Exchange:
    return Exchange({"type": "http", "headers": list(headers), "passed": []}, unused, unused, Account("r1"))


def noting(name: str) -> Stage:
    async def stage(exchange: Exchange, onward: Handler) -> None:
        exchange.scope["passed"].append(name)
        await onward(exchange.but(scope={**exchange.scope, "last": name}))
        exchange.scope["passed"].append(f"{name} again")

    return stage


async def test_the_first_stage_is_the_outermost() -> None:
    async def last(given: Exchange) -> None:
        given.scope["passed"].append(f"after {given.scope['last']}")

    request = exchange()
    await in_order([noting("a"), noting("b")], last)(request)
    assert request.scope["passed"] == ["a", "b", "after b", "b again", "a again"]
    assert "last" not in request.scope


def test_a_copy_differs_in_what_is_said_and_in_nothing_else() -> None:
    before = exchange((b"host", b"x"))
    after = before.but(scope={}, leaving=unused)
    assert after == replace(before, scope={}, leaving=unused)
    assert before.scope["headers"] == [(b"host", b"x")]
    with pytest.raises(FrozenInstanceError):
        after.scope = {}  # type: ignore[misc]


async def test_no_stages() -> None:
    reached = []

    async def last(given: Exchange) -> None:
        reached.append(given)

    request = exchange()
    await in_order([], last)(request)
    assert reached == [request]


async def test_a_stage_that_raises_lets_nothing_through() -> None:
    async def refuse(exchange: Exchange, onward: Handler) -> None:
        raise PermissionError

    request = exchange()
    with pytest.raises(PermissionError):
        await in_order([noting("a"), refuse, noting("b")], unused)(request)
    assert request.scope["passed"] == ["a"]


def test_headers_are_found_by_name_the_first_of_several() -> None:
    request = exchange((b"x-a", b"1"), (b"x-b", b"\xfc"), (b"x-b", b"3"))
    assert request.header(b"x-a") == "1"
    assert request.header(b"x-b") == "ü"
    assert request.header(b"x-c") is None
