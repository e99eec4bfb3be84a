"""Spans of OpenTelemetry: a request, and what the gate does for it; vLLM's own spans hang below.

A client that sends `traceparent` sees all of them in its own trace. Without an endpoint nothing is done, and what a
client sends goes to vLLM as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

from loraloom.server.errors import InvalidSettings
from loraloom.server.observe.account import Account

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
"""As in ASGI: names in lower case."""

CARRIERS = (b"traceparent", b"tracestate")
"""The headers of W3C's trace context."""
QUIET: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}
"""What an exception says is for the log, which masks secrets; a span has its code."""


class NoTraces:
    """Nobody wants spans."""

    def request(self, account: Account, headers: Headers) -> AbstractContextManager[None]:
        """See `Traces`."""
        return nullcontext()

    def step(self, name: str) -> AbstractContextManager[None]:
        """See `Traces`."""
        return nullcontext()

    def onward(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """See `Traces`."""
        return list(headers)

    def close(self) -> None:
        """See `Traces`."""


class Traces(NoTraces):
    """Makes spans."""

    def __init__(self, provider: TracerProvider) -> None:
        """
        Args:
            provider: where spans go.
        """
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("loraloom")
        self._context = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, account: Account, headers: Headers) -> Iterator[None]:
        """The span of a request, for the length of a block; a child of the client's, if that has sent one.

        Args:
            account: of the request; it says at the end how that went.
            headers: of the request.
        """
        from opentelemetry.trace import SpanKind

        sent = {name.decode(): value.decode("latin-1") for name, value in headers if name in CARRIERS}
        at = int(account.at * 1e9)
        with self._tracer.start_as_current_span(
            account.method, self._context.extract(sent), SpanKind.SERVER, start_time=at, **QUIET
        ) as span:
            try:
                yield
            finally:
                if span.is_recording():
                    _describe(span, account)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """The span of one step within the current request, for the length of a block."""
        with self._tracer.start_as_current_span(name, **QUIET):
            yield

    def onward(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Headers for the engine's server, by which its spans are children of the current one."""
        ours: dict[str, str] = {}
        self._context.inject(ours)
        rest = [header for header in headers if header[0] not in CARRIERS]
        return [*rest, *((name.encode(), value.encode()) for name, value in ours.items())]

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def traces_to(endpoint: str | None) -> NoTraces:
    """Spans that go to a collector, in the way that vLLM's go there: `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL` says how.

    Args:
        endpoint: of the collector, as for vLLM's `--otlp-traces-endpoint`; None for none.

    Raises:
        InvalidSettings: OpenTelemetry is not installed, or the protocol is none.
    """
    if not endpoint:
        return NoTraces()
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _exporter(endpoint, os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"))
    except ImportError as error:
        raise InvalidSettings(
            f"otlp_traces_endpoint needs OpenTelemetry ({error}): pip install opentelemetry-sdk "
            "opentelemetry-exporter-otlp, or leave the setting out"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "loraloom"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider)


def _exporter(endpoint: str, protocol: str) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoint=endpoint, insecure=True)
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        return Http(endpoint=endpoint)
    raise InvalidSettings(f"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is {protocol!r}: set it to grpc or http/protobuf")


def _describe(span: Span, account: Account) -> None:
    """Say of a request what OpenTelemetry's conventions have names for, and what is ours."""
    from opentelemetry.trace import StatusCode

    said: dict[str, Any] = {
        "http.request.method": account.method,
        "http.route": account.path or None,
        "http.response.status_code": account.status or None,
        "error.type": account.code or None,
        "gen_ai.response.model": account.model or None,
        "gen_ai.usage.input_tokens": account.prompt if account.model else None,
        "gen_ai.usage.output_tokens": account.output if account.model else None,
        "loraloom.request_id": account.id,
        "loraloom.client_id": account.client_id or None,
        "loraloom.key": account.access.key,
        "loraloom.ending": account.ending,
        "loraloom.edge_queue_seconds": account.edge_queued,
        "loraloom.engine_queue_seconds": account.engine_queued,
    }
    span.update_name(f"{account.method} {account.path}".strip())
    span.set_attributes({name: value for name, value in said.items() if value is not None})
    if account.ending == "failed":
        span.set_status(StatusCode.ERROR)
