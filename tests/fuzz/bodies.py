"""Requests to the gate: bodies that select an adapter or almost, and headers that contradict each other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.jsons import spelled, values
from tests.fuzz.texts import selections

ADAPTERS = ("sql", "sql@1", "sql@2", "sql@latest", "date", "org/x", "wide", "SQL", "nothing", "sql@9")
MIXTURES = ("sql+date", "0.5*sql+-0.5*date", "svd(rank=1):sql+date", "0*sql", "lorahub:sql", "1e309*sql", "200*sql")
MODELS = ("tiny", "tiny-alias", "", *ADAPTERS, *MIXTURES, "tiny~0.5", "sql~1", "ties(density=0.5):sql")
METHODS = ("POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "post", "")
CHAT = "/v1/chat/completions"
SELECTING = (CHAT, "/v1/completions", "/v1/responses", "/tokenize", "/v1/messages/count_tokens")
PATHS = (
    *SELECTING,
    *("/v1/models", "/v1/models/sql", "/v1/adapters", "/v1/adapters/a/b", "/ready", "/v1/compose/jobs/x/cancel"),
    *(
        "/invocations",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1/../v1/completions",
        "",
        "*",
        "/\0",
        "/\u00e9",
    ),
)

names = st.sampled_from(ADAPTERS)
models = st.sampled_from(MODELS) | st.sampled_from(MODELS[:6]) | selections
_structured = {
    "name": names | values,
    "version": st.sampled_from(("1", "latest", 2)) | values,
    "mix": st.dictionaries(names, st.sampled_from((1, 0.5, -0.5)), max_size=3) | values,
    "method": st.sampled_from(("exact", "lorahub", "svd(rank=1)")) | values,
    "alpha": values,
}
_lorax = {
    "ids": st.lists(names, max_size=3) | values,
    "weights": st.lists(st.sampled_from((1, 0.5)), max_size=3) | values,
    "merge_strategy": st.sampled_from(("linear", "ties", "dare_ties")) | values,
    "density": st.just(0.5) | values,
    "x" * 2000: values,
}
_fields: dict[str, st.SearchStrategy[Any]] = {
    "model": models | values,
    "adapter": models | st.fixed_dictionaries({}, optional=_structured) | values,
    "adapter_id": models | values,
    "merged_adapters": st.fixed_dictionaries({}, optional=_lorax) | values,
    "adapter_source": values,
    "priority": st.integers(-2, 5) | values,
    "background": st.booleans() | values,
    "messages": values,
    "max_tokens": values,
    "stream": values,
    "model ": values,
    "Model": values,
}
_one = {key: _fields[key] for key in ("model", "adapter", "adapter_id", "merged_adapters")}
objects = st.one_of(
    st.fixed_dictionaries({"model": models}, optional={"messages": values, "seed": values, "priority": st.just(1)}),
    st.sampled_from(sorted(_one)).flatmap(lambda key: st.fixed_dictionaries({key: _one[key], "prompt": values})),
    st.fixed_dictionaries({}, optional=_fields),
)
bodies = st.one_of(objects.map(lambda fields: json.dumps(fields).encode()), spelled(objects), spelled(values))

JSON = (b"content-type", b"application/json")
HEADERS = (
    *(
        (b"content-type", each)
        for each in (b"application/json", b"text/plain", b"multipart/form-data; boundary=x", b"")
    ),
    *(
        (b"content-length", each)
        for each in (b"0", b"5", b"-1", b"+5", b"5, 5", b"1e3", b"9" * 30, b"\xb2", b" 5", b"")
    ),
    *((b"transfer-encoding", each) for each in (b"chunked", b"identity", b"chunked, identity", b"xchunked", b"")),
    *((b"content-encoding", each) for each in (b"gzip", b"identity", b"br", b"\xff" * 60)),
    *((name, b"1") for name in (b"x-vllm-priority", b"x-amzn-sagemaker-adapter-identifier", b"x-data-parallel-rank")),
    *(
        (b"host", b"x"),
        (b"host", b"y"),
        (b"expect", b"100-continue"),
        (b"connection", b"upgrade"),
        (b"upgrade", b"h2c"),
    ),
    *((b"x-request-id", b"\xff\x00" * 20), (b"traceparent", b"00-0-0-0"), (b"content_length", b"5"), (b"", b"")),
    *((b"authorization", each) for each in (b"Bearer x", b"Bearer", b"\xff", b"Basic eA==", b"Bearer " + b"x" * 5000)),
)


@dataclass(frozen=True)
class Request:
    """One request, as a server hands it to an application.

    Attributes:
        method, path, headers: of the request.
        parts: of its body.
        leaves: whether the client leaves before the last part.
    """

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    parts: Sequence[bytes]
    leaves: bool = False

    @property
    def body(self) -> bytes:
        """All parts."""
        return b"".join(self.parts)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request, mostly to a path that selects."""
    raw = draw(bodies)
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3)))
    parts = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    mostly = draw(st.sampled_from((True, True, True, False)))
    method, path = ("POST", draw(st.sampled_from(SELECTING))) if mostly else draw(_lines)
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=3 if draw(st.booleans()) else 0))
    return Request(method, path, [*([JSON] if mostly else []), *headers], parts, draw(st.integers(0, 30)) == 30)


_lines = st.tuples(st.sampled_from(METHODS), st.sampled_from(PATHS) | st.text(max_size=9).map("/{}".format))
