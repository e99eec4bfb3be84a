"""Requests as an HTTP server hands them to an application, and an application that only answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from loraloom.server.gate.exchange import ASGIApp, Message, Receive, Scope, Send

PIECE = 64 * 2**10
"""Bytes of a body that the HTTP server hands over at once."""
HEADERS = (
    (b"host", b"127.0.0.1:8000"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"accept", b"application/json"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python 2.44.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-retry-count", b"0"),
)
ANSWER = json.dumps(
    {
        "id": "chatcmpl-8c2e9d1f5b7a4c60",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "base",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 31, "completion_tokens": 3, "total_tokens": 34},
    }
).encode()
TURN = (
    "The order of 2026-03-14 has not arrived. Find out where it is, tell the customer when it will come, and offer "
    "a refund if that is later than they were told. Answer in two sentences, politely, in the customer's own language."
)


@dataclass(frozen=True)
class Request:
    """A request that can be made again and again.

    Attributes:
        scope: of ASGI, with an application of its own under "app".
        body: the pieces in which the body arrives.
    """

    scope: Scope
    body: tuple[Message, ...]

    @classmethod
    def chat(cls, app: object, model: str, turns: int, key: str = "none") -> "Request":
        """A request for a chat completion, of some 0.25 kB a turn.

        Args:
            app: the application that the server runs.
            key: that it is sent with.
        """
        messages = [{"role": ("user", "assistant")[turn % 2], "content": TURN} for turn in range(turns)]
        fields = {"model": model, "messages": messages, "temperature": 0.2, "max_tokens": 256, "stream": False}
        raw = json.dumps(fields).encode()
        pieces = [raw[start : start + PIECE] for start in range(0, len(raw), PIECE)]
        body = tuple(
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        )
        return cls(_scope(app, len(raw), key), body)

    async def answered_by(self, app: ASGIApp) -> int:
        """Let an application answer; returns the status."""
        status = 0
        arriving = iter(self.body)

        async def receive() -> Message:
            return next(arriving)

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        await app({**self.scope}, receive, send)
        return status


def _scope(app: object, length: int, key: str) -> Scope:
    own = ((b"authorization", f"Bearer {key}".encode()), (b"content-length", str(length).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "POST",
        "root_path": "",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [*HEADERS, *own],
        "state": {},
        "app": app,
    }


def stub(pieces: int) -> ASGIApp:
    """An application that reads the body and gives a fixed answer, in one piece or, as a stream does, in many."""
    messages: Sequence[Message] = [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]},
        *(
            {"type": "http.response.body", "body": ANSWER, "more_body": number < pieces}
            for number in range(1, pieces + 1)
        ),
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        for message in messages:
            await send(message)

    return app
