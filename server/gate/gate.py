"""The gate: the one place that decides what enters.

A request passes the stages of `Gate.stages` in order; the first is the outermost. Each either hands it on or refuses
it by raising. What comes out behind the last one is an ordinary request to the engine's own server: the model's name
is canonical, and the adapter is leased until the answer has been sent.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from starlette.requests import ClientDisconnect

from loraloom.adapters.mixtures.mix import Outcome
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.store import Store
from loraloom.server.base import ServedBase
from loraloom.server.errors import EngineUnavailable, HeaderRefused, NotServed
from loraloom.server.gate import body
from loraloom.server.gate.effects import Effects
from loraloom.server.gate.exchange import (
    ASGIApp,
    Exchange,
    Handler,
    Message,
    Receive,
    Scope,
    Send,
    Stage,
    in_order,
)
from loraloom.server.gate.leases import Leases
from loraloom.server.gate.mixtures import Mixtures
from loraloom.server.gate.paths import Kind, OpenPaths
from loraloom.server.gate.priority import check_priority
from loraloom.server.gate.running import Running
from loraloom.server.gate.selection import Selector, rewritten
from loraloom.server.gate.statuses import UNEXPECTED, send_error, status_of
from loraloom.server.jobs import JobQueue
from loraloom.server.offline import Offline
from loraloom.server.scratch import Scratch
from loraloom.server.settings import Settings

log = logging.getLogger("vllm.loraloom.gate")

FOREIGN_SELECTORS = (b"x-amzn-sagemaker-adapter-identifier", b"x-amzn-sagemaker-adapter-alias")
"""Headers by which the engine's server would let a request choose an adapter after it has passed the gate."""

RANK_HEADER = b"loraloom-mixture-rank"
"""Of an answer by a mixture: its rank."""
ERROR_HEADER = b"loraloom-mixture-error"
"""Of an answer by a mixture: the Frobenius norm of what truncation left out, relative to the whole; 0 if nothing."""

Tier: TypeAlias = Literal["slot", "cpu"]
"""Where the engine holds an adapter: in a slot, or in main memory only."""


class Engine(Protocol):
    """What the gate needs to know of the engine."""

    @property
    def dead(self) -> bool:
        """Whether the engine has stopped for good."""

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""

    async def tiers(self) -> Mapping[str, Tier] | None:
        """Where each adapter is that the engine holds, by its name; None when the engine has no time to say."""


@dataclass(frozen=True)
class Gate:
    """Everything that a server shares between its requests."""

    settings: Settings
    store: Store
    engine: Engine
    base: ServedBase
    selector: Selector
    leases: Leases
    mixtures: Mixtures
    effects: Effects
    offline: Offline
    jobs: JobQueue
    scratch: Scratch
    paths: OpenPaths
    running: Running = field(default_factory=Running)

    @property
    def stages(self) -> Sequence[Stage]:
        """What a request passes, outermost first."""
        return (
            self.answer_errors,
            self.report_a_dead_engine,
            self.refuse_foreign_selectors,
            self.open_path,
            self.bound_the_body,
            self.select,
            self.lease,
        )

    async def answer_errors(self, exchange: Exchange, onward: Handler) -> None:
        """Turn an error into an answer, unless one has begun or nobody waits for it."""
        started = False

        async def send(message: Message) -> None:
            nonlocal started
            started = True
            await exchange.send(message)

        try:
            await onward(replace(exchange, send=send))
        except (body.Disconnected, ClientDisconnect):
            return
        except Exception as error:
            status = status_of(error)
            if status.http >= 500:
                trace = error if status is UNEXPECTED else None
                log.error("%s %s: %s", exchange.scope["method"], exchange.scope["path"], error, exc_info=trace)
            if started:
                raise
            await send_error(exchange.send, error)

    async def report_a_dead_engine(self, exchange: Exchange, onward: Handler) -> None:
        """Answer 503 when the engine is dead or dies, instead of 500 or never: it is about to be restarted."""

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 500 and self.engine.dead:
                raise EngineUnavailable("the engine stopped while it worked on this request; it is being restarted")
            await exchange.send(message)

        if self.engine.dead:
            raise EngineUnavailable("the engine has stopped; it is being restarted")
        with self.running.listed():
            try:
                await onward(replace(exchange, send=send))
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or not self.engine.dead:
                    raise
                task.uncancel()
                raise EngineUnavailable("the engine stopped while it worked on this request; send it again") from None
            except Exception as error:
                if self.engine.dead and status_of(error) is UNEXPECTED:
                    raise EngineUnavailable("the engine stopped while it worked on this request") from error
                raise

    async def refuse_foreign_selectors(self, exchange: Exchange, onward: Handler) -> None:
        """Refuse headers that choose an adapter behind the gate."""
        for header in FOREIGN_SELECTORS:
            if exchange.header(header) is not None:
                raise HeaderRefused(f"choose the adapter by the field `model`, not by the header {header.decode()}")
        await onward(exchange)

    async def open_path(self, exchange: Exchange, onward: Handler) -> None:
        """Let only opened paths in."""
        route = self.paths.find(exchange.scope["method"], exchange.scope["path"])
        await onward(replace(exchange, route=route))

    async def bound_the_body(self, exchange: Exchange, onward: Handler) -> None:
        """Refuse bodies over the limit, before reading them where their length is declared."""
        uploads = exchange.route is not None and exchange.route.kind is Kind.UPLOAD
        limit = self.settings.max_upload_bytes if uploads else self.settings.max_body_bytes
        body.check_declared_length(exchange, limit)
        await onward(replace(exchange, receive=body.counted(exchange.receive, limit)))

    async def select(self, exchange: Exchange, onward: Handler) -> None:
        """Resolve what the body selects to one version, and write its canonical name into the body."""
        if exchange.route is None or exchange.route.kind is not Kind.SELECT or exchange.scope["method"] != "POST":
            return await onward(exchange)
        body.check_json_type(exchange)
        fields = body.parse(await body.read(exchange.receive, self.settings.max_body_bytes))
        check_priority(exchange, fields)
        if fields.get("background"):
            raise NotServed("responses in the background are not available on this server", param="background")
        choice = await self.selector.choose(fields)
        scope, receive = body.replayed(rewritten(fields, choice), exchange.scope, exchange.receive)
        await onward(replace(exchange, scope=scope, receive=receive, choice=choice))

    async def lease(self, exchange: Exchange, onward: Handler) -> None:
        """Hold the selected adapter until the answer has been sent."""
        choice = exchange.choice
        if choice is None or choice.content is None:
            return await onward(exchange)
        async with AsyncExitStack() as held:
            if isinstance(choice.content, Recipe):
                outcome = await held.enter_async_context(self.mixtures.kept(choice.content))
                exchange = _telling(exchange, outcome)
            await held.enter_async_context(self.leases.hold(choice.model, choice.content))
            await onward(exchange)


def _telling(exchange: Exchange, outcome: Outcome) -> Exchange:
    """The exchange, whose answer will tell in its headers how the mixture came out."""
    headers = [(RANK_HEADER, str(outcome.rank).encode()), (ERROR_HEADER, f"{outcome.error:.6g}".encode())]

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await exchange.send(message)

    return replace(exchange, send=send)


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
            await self._handler_of(scope["app"].state.loraloom)(Exchange(scope, receive, send))
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "not open on this server"})

    def _handler_of(self, gate: Gate) -> Handler:
        """The stages of a gate in a row, folded once."""
        if gate is not self._gate:
            self._gate, self._handler = gate, in_order(gate.stages, self._enter)
        return self._handler

    async def _enter(self, exchange: Exchange) -> None:
        await self._app(exchange.scope, exchange.receive, exchange.send)
