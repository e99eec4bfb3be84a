"""The gate before an application that notes what reaches it: requests as an ASGI server hands them over."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from loraloom.server.gate.exchange import Message, Receive, Scope, Send
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.middleware import GateMiddleware
from tests.fuzz.bodies import Request


@dataclass
class Seen:
    """A request as it reached the application.

    Attributes:
        scope: its scope.
        body: all of its body.
        after: what the channel says when the body is over.
    """

    scope: Scope
    body: bytes
    after: Message


@dataclass
class Reply:
    """An answer.

    Attributes:
        starts: the statuses that were sent; one, where all is well.
        headers: of the answer.
        body: all of its body.
    """

    starts: list[int] = field(default_factory=list)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class Echo:
    """An application in place of the engine's server, behind a gate."""

    def __init__(self, gate: Gate) -> None:
        self.seen: list[Seen] = []
        self._app = SimpleNamespace(state=SimpleNamespace(loraloom=gate))
        self._gate = GateMiddleware(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is behind the gate."""
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"seen"})
        self.seen.append(Seen(scope, body, await receive()))

    async def served(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The gate as an application of its own, for a server."""
        await self._gate({**scope, "app": self._app}, receive, send)

    async def answer(self, request: Request) -> Reply:
        """Send a request through the gate."""
        reply, messages = Reply(), _messages(request.parts, request.leaves)

        async def receive() -> Message:
            return messages.pop(0) if len(messages) > 1 else messages[0]

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply.starts.append(message["status"])
                reply.headers |= dict(message["headers"])
            reply.body += message.get("body", b"")

        scope = {
            **{"type": "http", "method": request.method, "path": request.path, "query_string": b"", "app": self._app},
            **{"raw_path": request.path.encode(errors="replace"), "headers": list(request.headers), "scheme": "http"},
            **{"http_version": "1.1", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)},
        }
        async with asyncio.timeout(30):
            await self._gate(scope, receive, send)
        return reply


def _messages(parts: Sequence[bytes], leaves: bool) -> list[Message]:
    found: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if leaves:
        found.pop()
    else:
        found[-1]["more_body"] = False
    return [*found, {"type": "http.disconnect"}]
