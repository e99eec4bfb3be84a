"""The gate: the one place that decides what enters.

A request passes the stages of `Gate.stages` in order; the first is the outermost. Each either hands it on or refuses
it by raising. What comes out behind the last one is an ordinary request to the engine's own server: the model's name
is canonical, it is the request's turn, and the adapter is leased until the answer has been sent.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

from starlette.requests import ClientDisconnect

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.mixtures.mix import Outcome
from loraloom.adapters.mixtures.recipe import Recipe
from loraloom.adapters.store import Store
from loraloom.server.access.access import ANONYMOUS, ANYONE, Role
from loraloom.server.access.origin import check_origin, is_preflight
from loraloom.server.access.table import KeyTable
from loraloom.server.access.view import View
from loraloom.server.admission.admission import Admission
from loraloom.server.admission.asked import Asked
from loraloom.server.admission.estimate import estimate
from loraloom.server.admission.limits import Limits
from loraloom.server.base import ServedBase
from loraloom.server.errors import Disconnected, EngineUnavailable, Forbidden, InvalidBody, MethodNotOpen
from loraloom.server.gate import body
from loraloom.server.gate.bodies import Bodies
from loraloom.server.gate.bounds import check_bounds
from loraloom.server.gate.contents import Content
from loraloom.server.gate.damage import Damage
from loraloom.server.gate.demands import check_demands
from loraloom.server.gate.effects import Effects
from loraloom.server.gate.exchange import Choice, Exchange, Handler, Message, Stage
from loraloom.server.gate.leases import Leases
from loraloom.server.gate.looks import Looks
from loraloom.server.gate.mixtures import Mixtures
from loraloom.server.gate.paths import METRICS, Kind, OpenPaths, Route
from loraloom.server.gate.patience import within
from loraloom.server.gate.privileges import can_wait, check_fields, check_selectors, for_the_engine, without_privileges
from loraloom.server.gate.running import Running
from loraloom.server.gate.selection import Selector
from loraloom.server.gate.statuses import UNEXPECTED, send_error, status_of
from loraloom.server.gate.turns import Turns
from loraloom.server.gate.work import Work
from loraloom.server.jobs import JobQueue
from loraloom.server.lax import flag
from loraloom.server.observe.account import Account
from loraloom.server.observe.observer import Observer
from loraloom.server.offline import Offline
from loraloom.server.scratch import Scratch
from loraloom.server.settings import Settings

log = logging.getLogger("vllm.loraloom.gate")

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
    keys: KeyTable
    limits: Limits
    admission: Admission
    bodies: Bodies
    building: Turns
    looks: Looks
    damage: Damage
    observer: Observer = field(default_factory=Observer)
    work: Work = field(default_factory=Work)
    running: Running = field(default_factory=Running)

    @property
    def stages(self) -> Sequence[Stage]:
        """What a request passes, outermost first."""
        return (
            self.keep_account,
            self.answer_errors,
            self.report_a_dead_engine,
            self.open_path,
            self.authenticate,
            self.drop_privileges,
            self.keep_limits,
            self.bound_the_body,
            self.select,
            self.admit,
            self.lease,
        )

    def view(self, account: Account) -> View:
        """The store as whoever asks sees it."""
        return View(self.store, lambda: account.access)

    async def keep_account(self, exchange: Exchange, onward: Handler) -> None:
        """Follow the request to its end, and tell what it cost."""
        account = exchange.account

        async def receive() -> Message:
            message = await exchange.receive()
            account.heard(message["type"])
            return message

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(b"x-request-id", account.id.encode()), *account.headers, *self.limits.headers(account.access)]
                message = {**message, "headers": [*message.get("headers", ()), *ours]}
            account.told(message)
            try:
                await within(self.settings.client_timeout, exchange.send(message))
            except TimeoutError:  # it is as good as gone, and must not hold a seat
                raise Disconnected("the client takes no more of its answer") from None

        with self.observer.following(account, exchange.scope["headers"]):
            await onward(exchange.but(receive=receive, send=send))

    async def answer_errors(self, exchange: Exchange, onward: Handler) -> None:
        """Turn an error into an answer, unless one has begun or nobody waits for it."""
        account = exchange.account
        try:
            await onward(exchange)
        except (Disconnected, ClientDisconnect):
            account.ending = "disconnected"
        except Exception as error:
            status = status_of(error)
            account.code = status.code
            if status.http >= 500:
                level, trace = (logging.ERROR, error) if status is UNEXPECTED else (logging.WARNING, None)
                log.log(level, "%s %s %s: %s", account.id, account.method, account.path, error, exc_info=trace)
            if account.status:
                account.ending = "failed"
                raise
            await send_error(exchange.send, error)

    async def report_a_dead_engine(self, exchange: Exchange, onward: Handler) -> None:
        """Answer 503 when the engine is dead or dies, instead of 500 or never: it is about to be restarted."""

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 500 and self.engine.dead:
                raise EngineUnavailable("the engine stopped while it worked on this request; it is being restarted")
            await exchange.send(message)

        if self.engine.dead and exchange.scope["path"] != METRICS:  # they tell that it is dead
            raise EngineUnavailable("the engine has stopped; it is being restarted")
        with self.running.listed():
            try:
                await onward(exchange.but(send=send))
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
            if self.engine.dead:  # what was streamed ends with an error of the engine's server
                exchange.account.ending = "failed"

    async def open_path(self, exchange: Exchange, onward: Handler) -> None:
        """Let only opened paths in."""
        method = exchange.account.method
        route = self.paths.find(method, exchange.scope["path"])
        if method == "OPTIONS" and not is_preflight(exchange.scope["headers"]):  # some answer it as they do GET
            raise MethodNotOpen(f"{route.pattern} takes {', '.join(sorted(route.methods))}, not {method}")
        exchange.account.path = route.pattern
        await onward(exchange.but(route=route))

    async def authenticate(self, exchange: Exchange, onward: Handler) -> None:
        """Find out who asks, and whether the path is open to them; some are open to everybody."""
        assert exchange.route is not None, "the path has been looked up"
        role = exchange.route.role(exchange.account.method)
        if role is None:
            return await onward(exchange)
        check = partial(self._check_who, exchange, exchange.route, role)
        check()
        await onward(exchange.but(receive=body.when_late(exchange.receive, check)))

    def _check_who(self, exchange: Exchange, route: Route, role: Role) -> None:
        """Note who asks; raises `Unauthenticated`, or `Forbidden` if they may not."""
        account, headers = exchange.account, exchange.scope["headers"]
        account.access = self.keys.authenticate(headers)
        if account.access is ANYONE and not self.settings.insecure:
            check_origin(headers)
        if not account.access.has(role):
            raise Forbidden(
                f"{account.method} {route.pattern} takes a key of the role {role.word}, and {account.access.key!r} has "
                f"the role {account.access.role.word}"
            )

    async def drop_privileges(self, exchange: Exchange, onward: Handler) -> None:
        """Refuse headers that choose an adapter behind the gate, and drop what clients may not say to the engine."""
        check_selectors(exchange)
        scope = without_privileges(exchange.scope, exchange.account.id)
        scope["headers"] = self.observer.traces.onward(scope["headers"])
        await onward(exchange.but(scope=scope))

    async def keep_limits(self, exchange: Exchange, onward: Handler) -> None:
        """Count the request, and refuse it if its key has used up what it may ask for."""
        account = exchange.account
        with self.limits.counted(account.access) as allowance:
            account.spent.append(allowance.spend)
            await onward(exchange.but(allowance=allowance))

    async def bound_the_body(self, exchange: Exchange, onward: Handler) -> None:
        """Refuse bodies over the limit, before reading them where their length is declared, and too many at a time."""
        uploads = exchange.route is not None and exchange.route.kind is Kind.UPLOAD and body.is_form(exchange)
        limit = self.settings.max_upload_bytes if uploads else self.settings.max_body_bytes
        body.check_declared_length(exchange, limit)
        receive = body.counted(exchange.receive, limit, self.settings.client_timeout)
        if uploads:  # these go to the disk
            return await onward(exchange.but(receive=receive))
        with self.bodies.counted(exchange.access.key, receive) as counting:
            await onward(exchange.but(receive=counting))

    async def select(self, exchange: Exchange, onward: Handler) -> None:
        """Resolve what the body selects to one version, and write its canonical name into the body."""
        if exchange.route is None or not exchange.route.selects or exchange.account.method != "POST":
            return await onward(exchange)
        await onward(await self._selected(exchange))

    async def _selected(self, exchange: Exchange) -> Exchange:
        """The exchange with its choice; of the body only what the engine gets stays in memory."""
        body.check_json_type(exchange)
        raw = await body.read(exchange.receive, self.settings.max_body_bytes)
        body.check_values(raw, self.engine.max_model_len)
        account, fields = exchange.account, body.parse(raw)
        check_demands(fields, raw)
        check_fields(fields, account.access)
        with self.observer.step("select"):
            choice = await self.selector.choose(fields, self.view(account))
        account.model, account.beams = choice.model, flag(fields.get("use_beam_search"))
        asked = self._asked(exchange, fields, choice)
        share_cache = self.settings.share_prefix_cache
        sent = for_the_engine(fields, choice, account.access, share_cache=share_cache)
        scope, receive = body.replayed(sent, exchange.scope, exchange.receive)
        leaving = partial(body.leaving, exchange.receive)
        return exchange.but(scope=scope, receive=receive, choice=choice, asked=asked, leaving=leaving)

    def _asked(self, exchange: Exchange, fields: Mapping[str, Any], choice: Choice) -> Asked | None:
        """What the engine is asked to compute, for the queue; None where it is not asked."""
        assert exchange.route is not None, "the path has been looked up"
        if exchange.route.kind is not Kind.GENERATE and choice.content is None:
            return None
        adapter, access = None if choice.content is None else choice.model, exchange.access
        work, most = estimate(fields, exchange.route.pattern), self.admission.rules.most_seats
        check_bounds(fields, exchange.route.pattern, work, self.engine.max_model_len)
        if work.sequences > most and access.key != ANONYMOUS:
            raise InvalidBody(
                f"this request asks for {work.sequences} answers at a time (`n` for each of its prompts), and a key "
                f"may have {most} here: send it in parts",
                param="n",
            )
        return Asked(access.key, adapter, work, can_wait(fields, access))

    async def admit(self, exchange: Exchange, onward: Handler) -> None:
        """Wait for the request's turn: here, where turns are fair between keys, and not in the engine."""
        if exchange.asked is None:
            return await onward(exchange)
        exchange.allowance.reserve(exchange.asked.work.tokens)
        account = exchange.account
        account.note_queued()
        with self.observer.step("admit"):
            ticket = await self.admission.enter(exchange.asked, exchange.leaving)
        try:
            account.note_admitted()
            account.spent.append(ticket.spend)
            await onward(exchange)
        finally:
            self.admission.leave(ticket)

    async def lease(self, exchange: Exchange, onward: Handler) -> None:
        """Hold the selected adapter until the answer has been sent."""
        choice, account = exchange.choice, exchange.account
        if choice is None or choice.content is None:
            return await onward(exchange)
        async with AsyncExitStack() as held:
            with self.observer.step("lease"):
                try:
                    await self._take(choice.model, choice.content, account, held)
                except DamagedBlob as error:
                    explain = self.damage.explained
                    raise await self.looks.take(explain, error, choice, self.view(account)) from error
            account.note_leased()
            await onward(exchange)

    async def _take(self, model: str, content: Content, account: Account, held: AsyncExitStack) -> None:
        """Build what has to be built, and have the engine read it."""
        if isinstance(content, Recipe):
            turn = self.building.taken(account.access.key)
            outcome = await held.enter_async_context(self.mixtures.kept(content, turn))
            account.headers += _telling(outcome)
        self.observer.events.asked(resident=self.leases.resident(model))
        await held.enter_async_context(self.leases.hold(model, content))


def _telling(outcome: Outcome) -> list[tuple[bytes, bytes]]:
    """The headers that tell how a mixture came out."""
    return [(RANK_HEADER, str(outcome.rank).encode()), (ERROR_HEADER, f"{outcome.error:.6g}".encode())]
