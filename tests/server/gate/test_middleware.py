"""The gate around an application."""

from typing import Any

import httpx
from starlette.applications import Starlette

from loraloom.server.gate.exchange import Message
from loraloom.server.gate.middleware import GateMiddleware
from tests.server.conftest import BuildGate
from tests.server.gate.application import CHAT, Model


async def test_a_websocket_is_closed(app: Starlette, model: Model) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": CHAT, "headers": []}, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
    assert model.seen == []


async def test_the_start_and_the_end_of_the_application_pass() -> None:
    passed: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    async def unused(*_: Any) -> Any:
        raise AssertionError("the gate takes no part in this")

    await GateMiddleware(inner)({"type": "lifespan"}, unused, unused)
    assert passed == ["lifespan"]


async def test_a_gate_that_takes_the_place_of_another_counts(
    app: Starlette, client: httpx.AsyncClient, build_gate: BuildGate
) -> None:
    assert (await client.post(CHAT, json={"prompt": "x" * 2000})).status_code == 200
    app.state.loraloom = build_gate(max_body_bytes=1024)
    assert (await client.post(CHAT, json={"prompt": "x" * 2000})).status_code == 413
