"""A collector of OpenTelemetry's spans, as far as tests need one."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Span:
    """One span.

    Attributes:
        scope: whose it is.
        trace, id, parent: in hexadecimal; the parent of a root is empty.
        said: its attributes.
    """

    scope: str
    name: str
    trace: str
    id: str
    parent: str
    said: dict[str, Any]


@dataclass
class Collector:
    """Everything that was sent so far, and where to send it."""

    url: str
    spans: list[Span] = field(default_factory=list)

    def of_request(self, id: str) -> list[Span]:
        """The spans in the trace of a request; empty as long as its own has not come."""
        traces = {span.trace for span in self.spans if span.said.get("loraloom.request_id") == id}
        return [span for span in self.spans if span.trace in traces]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Take spans by OTLP over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            collector.spans += _spans(gzip.decompress(raw) if self.headers["content-encoding"] == "gzip" else raw)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        collector = Collector(f"http://127.0.0.1:{listening.server_address[1]}/v1/traces")
        Thread(target=listening.serve_forever, daemon=True).start()
        yield collector
        listening.shutdown()


def _spans(raw: bytes) -> Iterator[Span]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield Span(scope.scope.name, span.name, *ids, {one.key: _value(one.value) for one in span.attributes})


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
