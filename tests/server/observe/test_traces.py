"""Spans, in memory."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from loraloom.server.errors import InvalidSettings
from loraloom.server.observe.traces import NoTraces, Traces, traces_to
from tests.server.observe.conftest import Ended

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = [(b"host", b"x"), (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()), (b"tracestate", b"vendor=1")]


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exported: InMemorySpanExporter) -> Iterator[Traces]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    traces = Traces(provider)
    yield traces
    traces.close()


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def test_a_request_hangs_below_its_clients_span_and_its_steps_below_it(
    traces: Traces, exported: InMemorySpanExporter, ended: Ended
) -> None:
    with traces.request(ended(), SENT):
        with traces.step("select"):
            pass
        with traces.step("lease"):
            onward = dict(traces.onward(SENT))
    select, lease, request = exported.get_finished_spans()
    assert (select.name, lease.name, request.name) == ("select", "lease", "POST /v1/chat/completions")
    assert parent_of(request) == PARENT
    assert {parent_of(select), parent_of(lease)} == {id_of(request)}
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert onward == {
        b"host": b"x",
        b"traceparent": f"00-{TRACE}-{id_of(lease)}-01".encode(),
        b"tracestate": b"vendor=1",
    }


def test_a_request_says_at_its_end_how_it_went(traces: Traces, exported: InMemorySpanExporter, ended: Ended) -> None:
    with traces.request(ended(status=503, ending="failed", code="overloaded", admitted=None), []):
        pass
    (span,) = exported.get_finished_spans()
    assert span.parent is None
    assert not span.status.is_ok
    assert span.start_time == pytest.approx(1_780_000_000_250_000_000, abs=1000)
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 503,
        "error.type": "overloaded",
        "gen_ai.response.model": "sql@4",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 4,
        "loraloom.request_id": "r1",
        "loraloom.key": "team-a",
        "loraloom.ending": "failed",
        "loraloom.engine_queue_seconds": 0.2,
    }


def test_what_an_exception_says_is_not_in_a_span(traces: Traces, exported: InMemorySpanExporter, ended: Ended) -> None:
    with pytest.raises(RuntimeError), traces.request(ended(client_id="job-7"), []), traces.step("lease"):
        raise RuntimeError("Bearer of a secret")
    for span in exported.get_finished_spans():
        assert (span.events, span.status.description) == ((), None)
    assert (exported.get_finished_spans()[-1].attributes or {})["loraloom.client_id"] == "job-7"


def test_a_client_that_samples_nothing_is_obeyed(traces: Traces, exported: InMemorySpanExporter, ended: Ended) -> None:
    with traces.request(ended(), [(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())]):
        onward = dict(traces.onward([]))
    assert exported.get_finished_spans() == ()
    assert onward[b"traceparent"].endswith(b"-00")


def test_a_header_that_is_none_begins_a_trace_of_its_own(
    traces: Traces, exported: InMemorySpanExporter, ended: Ended
) -> None:
    with traces.request(ended(), [(b"traceparent", b"\xff nonsense")]):
        pass
    (span,) = exported.get_finished_spans()
    assert span.parent is None


def test_without_an_endpoint_what_a_client_sends_goes_on_as_it_is(ended: Ended) -> None:
    traces = traces_to(None)
    assert type(traces) is NoTraces
    with traces.request(ended(), SENT), traces.step("select"):
        assert traces.onward(SENT) == SENT
    traces.close()


def test_a_collector_by_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    traces = traces_to("http://127.0.0.1:9/v1/traces")
    assert isinstance(traces, Traces)
    traces.close()


def test_a_protocol_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "carrier-pigeon")
    with pytest.raises(InvalidSettings, match="carrier-pigeon"):
        traces_to("http://127.0.0.1:9")
