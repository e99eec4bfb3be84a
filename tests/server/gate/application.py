"""A small application behind the gate, in place of the engine's server, and clients that reach it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from loraloom.server.gate.exchange import Message
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.middleware import GateMiddleware
from tests.server.conftest import BASE
from tests.server.fakes import FakeEngine

CHAT = "/v1/chat/completions"


class Model:
    """An application in place of the engine's server: it computes with the adapter that its request names.

    Attributes:
        seen: path, headers and body of every request that passed the gate.
        parts: of a streamed answer; each is sent when it is put here, None is the end.
    """

    def __init__(self, engine: FakeEngine) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.parts: asyncio.Queue[str | None] = asyncio.Queue()
        self._engine = engine

    async def chat(self, request: Request) -> Response:
        raw = await request.body()
        self._note(request, raw)
        body = json.loads(raw)
        if body.get("stream"):
            return StreamingResponse(self._stream(body["model"]))
        self._engine.dead = "kill" in body
        if "fail" in body:
            raise RuntimeError("a secret of the server")
        await self._compute(body["model"])
        return JSONResponse({"model": body["model"]}, status_code=body.get("answer", 200))

    async def other(self, request: Request) -> Response:
        self._note(request, await request.body())
        return PlainTextResponse("other")

    async def upload(self, request: Request) -> Response:
        async for part in request.stream():
            self._note(request, part)
        return PlainTextResponse("uploaded")

    def _note(self, request: Request, raw: bytes) -> None:
        self.seen.append((request.url.path, dict(request.headers), raw))

    async def _compute(self, model: str) -> None:
        if model == BASE:
            return
        with self._engine.using(model):
            for _ in range(3):
                await asyncio.sleep(0)

    async def _stream(self, model: str) -> AsyncIterator[str]:
        with self._engine.using(model):
            while (part := await self.parts.get()) is not None:
                if part == "fail":
                    raise RuntimeError("a secret of the server")
                yield part


def application(model: Model, gate: Gate) -> Starlette:
    """As the engine's server is built: CORS inside of the gate."""
    app = Starlette(
        routes=[
            Route(CHAT, model.chat, methods=["POST"]),
            Route("/v1/adapters", model.upload, methods=["POST"]),
            Route("/{path:path}", model.other, methods=["GET", "POST", "DELETE"]),
        ]
    )
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(GateMiddleware)
    app.state.loraloom = gate
    return app


def client_of(app: Starlette) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


class Connection:
    """A client on the level of ASGI, which can wait in the middle, and leave.

    Attributes:
        sent: what it was sent.
        incoming: what it says.
        reads: whether it takes what it is sent.
    """

    def __init__(self, app: Starlette, path: str = CHAT, **headers: str) -> None:
        self.sent: list[Message] = []
        self.reads = True
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        raw = {"content-type": "application/json", **headers}
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in raw.items()],
        }
        self.task = asyncio.ensure_future(app(self._scope, self.incoming.get, self._send))

    async def _send(self, message: Message) -> None:
        while not self.reads:
            await asyncio.sleep(60)
        self.sent.append(message)

    async def give(self, body: object, more: bool = False) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.incoming.put_nowait({"type": "http.request", "body": raw, "more_body": more})
        await settled()

    async def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})
        await settled()

    async def ended(self) -> None:
        """Wait until the application is done with it; raises what that raises."""
        async with asyncio.timeout(30):
            await self.task

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


async def settled() -> None:
    """Let everything run that can; loading an adapter takes a thread."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)
