"""One request on its way through the gate, and how stages are put in a row."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

from loraloom.server.access.access import Access
from loraloom.server.admission.admission import Leaving, stays
from loraloom.server.admission.asked import Asked
from loraloom.server.admission.limits import UNLIMITED, Allowance
from loraloom.server.gate.contents import Content
from loraloom.server.gate.paths import Route
from loraloom.server.observe.account import Account

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

ACCOUNT = "loraloom.account"
"""Where a request's scope has its account, for the routes behind the gate."""


@dataclass(frozen=True)
class Choice:
    """What a request selected.

    Attributes:
        model: the canonical name, which the engine and the response carry.
        content: what the adapter consists of; None is the plain base model.
    """

    model: str
    content: Content | None = None


@dataclass(frozen=True)
class Exchange:
    """One request and its reply channel; a stage hands on a copy with what it found out.

    Attributes:
        scope, receive, send: as in ASGI.
        account: what it costs; the one thing here that changes on the way.
        route: the opened path that the request goes to.
        allowance: what its key may still use.
        choice: what the request selected, where its path takes a selection.
        asked: what the engine is asked to compute, where its path has it compute.
        leaving: returns when the client leaves; nothing else may read from `receive` meanwhile.
    """

    scope: Scope
    receive: Receive
    send: Send
    account: Account
    route: Route | None = None
    allowance: Allowance = UNLIMITED
    choice: Choice | None = None
    asked: Asked | None = None
    leaving: Leaving = stays

    def but(self, **changes: Any) -> "Exchange":
        """A copy that differs in some attributes: `dataclasses.replace`, which takes five times as long."""
        other = object.__new__(Exchange)
        other.__dict__.update(self.__dict__, **changes)
        return other

    @property
    def access(self) -> Access:
        """Who asks; nobody in particular before the key has been looked at."""
        return self.account.access

    def header(self, name: bytes) -> str | None:
        """The first header of this name (lower case), decoded; None without one."""
        values = (value.decode("latin-1") for key, value in self.scope["headers"] if key == name)
        return next(values, None)


Handler = Callable[[Exchange], Awaitable[None]]


class Stage(Protocol):
    """One step of the gate: look at the exchange, then call `onward`, or raise to refuse it."""

    async def __call__(self, exchange: Exchange, onward: Handler) -> None: ...


def in_order(stages: Sequence[Stage], last: Handler) -> Handler:
    """Fold stages into one handler; the first of them is the outermost."""

    def around(inner: Handler, stage: Stage) -> Handler:
        async def handler(exchange: Exchange) -> None:
            await stage(exchange, inner)

        return handler

    return reduce(around, reversed(stages), last)
