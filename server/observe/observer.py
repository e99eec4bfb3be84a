"""Follows a request from its first byte to its end, and tells what it cost: to metrics, ledger, log and traces."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from loraloom.server.observe import logs
from loraloom.server.observe.account import CURRENT, Account, Ending, printable
from loraloom.server.observe.events import UNHEARD, Counted, Events
from loraloom.server.observe.ledger import Ledger
from loraloom.server.observe.metrics import Traffic
from loraloom.server.observe.traces import Headers, NoTraces, traces_to
from loraloom.server.settings import Settings


@dataclass(frozen=True)
class Observer:
    """Whoever wants to know what requests cost.

    Attributes:
        traffic: for Prometheus.
        ledger: for bills; None where none is kept.
        traces: for OpenTelemetry.
        events: of adapters.
    """

    traffic: Traffic = field(default_factory=Traffic)
    ledger: Ledger | None = None
    traces: NoTraces = field(default_factory=NoTraces)
    events: Events = UNHEARD

    @classmethod
    def start(cls, settings: Settings, registry: CollectorRegistry) -> "Observer":
        """As the settings say, with the metrics in a registry; raises `InvalidSettings`. `close` ends it."""
        traffic = Traffic(adapters=settings.metrics_adapters)
        registry.register(traffic)
        ledger = Ledger(settings.usage) if settings.usage is not None else None
        if ledger is not None:
            ledger.start()
        logs.write_requests_as(settings.log_format)
        return cls(traffic, ledger, traces_to(settings.otlp_traces_endpoint), Counted(registry))

    def close(self) -> None:
        """Write down what waits to be; before the process ends in a way that runs nothing more."""
        if self.ledger is not None:
            self.ledger.close()
        self.traces.close()

    @contextmanager
    def following(self, account: Account, headers: Headers) -> Iterator[None]:
        """Follow a request for the length of a block, and tell what it cost when that has ended, however it did.

        Args:
            account: of the request.
            headers: of the request, as in ASGI.
        """
        headers = list(headers)
        account.client_id = printable(next((value for name, value in headers if name == b"x-request-id"), b""))
        token = CURRENT.set(account)
        try:
            with self.traces.request(account, headers), _closing(account):
                yield
        finally:
            CURRENT.reset(token)
            self.ended(account)

    def step(self, name: str) -> AbstractContextManager[None]:
        """The span of one step of the current request, for the length of a block."""
        return self.traces.step(name)

    def ended(self, account: Account) -> None:
        """Tell what a request has cost."""
        self.traffic.ended(account)
        if self.ledger is not None and account.model:
            self.ledger.add(account)
        logs.tell(account)


@contextmanager
def _closing(account: Account) -> Iterator[None]:
    """Close the account at the end of a block, and say how it ended."""
    ending: Ending | None = None
    try:
        yield
    except asyncio.CancelledError:
        ending = "disconnected"
        raise
    except BaseException:
        ending = "failed"
        raise
    finally:
        account.settle()
        account.ending = account.ending or ending or _ending(account)


def _ending(account: Account) -> Ending:
    """What an answer says about how the request ended, where nothing went wrong on the way."""
    if account.status >= 500 or not account.complete:
        return "failed"
    return "refused" if account.status >= 400 else "answered"
