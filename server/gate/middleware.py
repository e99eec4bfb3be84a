"""The gate as ASGI middleware, around the engine's own server."""

import uuid

from loraloom.server.gate.exchange import ACCOUNT, ASGIApp, Exchange, Handler, Receive, Scope, Send, in_order
from loraloom.server.gate.gate import Gate
from loraloom.server.observe.account import Account


class GateMiddleware:
    """The gate as ASGI middleware, for the engine's `--middleware`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gate: Gate | None = None
        self._handler: Handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass the gate of the application that it belongs to."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            account = Account(uuid.uuid4().hex, scope["method"])
            exchange = Exchange({**scope, ACCOUNT: account}, receive, send, account)
            await self._handler_of(scope["app"].state.loraloom)(exchange)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "not open on this server"})

    def _handler_of(self, gate: Gate) -> Handler:
        """The stages of a gate in a row, folded once."""
        if gate is not self._gate:
            self._gate, self._handler = gate, in_order(gate.stages, self._enter)
        return self._handler

    async def _enter(self, exchange: Exchange) -> None:
        await self._app(exchange.scope, exchange.receive, exchange.send)
