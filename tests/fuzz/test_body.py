"""Whatever a request says, the gate refuses it as OpenAI would, or hands on the same but for what is documented."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.names import Mixture
from loraloom.server.access.access import ANYONE
from loraloom.server.errors import InvalidBody
from loraloom.server.gate import body
from loraloom.server.gate.demands import check_demands
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.lorax import merged_adapters
from loraloom.server.gate.privileges import DROPPED_FIELDS, for_the_engine
from loraloom.server.lax import integer
from tests.fuzz.bodies import SELECTING, Request, bodies, objects, requests
from tests.fuzz.cases import fuzzed, little_memory, watched
from tests.fuzz.echo import Echo, Reply, Seen
from tests.fuzz.jsons import values
from tests.server.conftest import BASE, Publish
from tests.server.fakes import FakeEngine

SERVED = {BASE, "tiny-alias", "sql@1", "sql@2", "date@1", "org/x@1"}
TOLD = 6000
"""Bytes in the longest error."""
AS_THE_ENGINE: TypeAdapter[int] = TypeAdapter(int)
"""As the models by which the engine's server reads a body."""

numbers = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(("", " ", "\n", "\u00a0", " " * 120)),
    st.sampled_from(("", "+", "-", "000", "0" * 101, "0" * 5000, "1_")),
    st.integers(0, 2**70).map(str),
    st.sampled_from(("", ".0", "." + "0" * 200, " ", " " * 120, "_0", ".", "e1")),
)
"""Texts that are integers to the engine's server, or almost."""


def read(raw: bytes) -> Any:
    """What Python's own parser makes of a text; infinities and NaN, which it knows, are no JSON."""

    def no(name: str) -> None:
        raise ValueError(name)

    return json.loads(raw.decode(), parse_constant=no)


def exactly(value: object) -> str:
    """A text that differs wherever values do: 1 and 1.0, 0.0 and -0.0, keys in another order."""
    return json.dumps(value)


def passing(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that reach the engine as they are."""
    return {key: value for key, value in fields.items() if key not in DROPPED_FIELDS}


def told(error: Exception) -> None:
    """Everything that an error promises."""
    assert 0 < len(str(error)) <= TOLD
    assert str(error).encode()


@fuzzed(0.45)
@given(bodies)
@watched
def test_a_body_comes_out_the_same_or_is_refused(raw: bytes) -> None:
    try:
        with little_memory():
            fields = body.parse(raw)
            sent = body.written(for_the_engine(fields, Choice("sql@4"), ANYONE, share_cache=True))
    except InvalidBody as error:
        return told(error)
    assert exactly(fields) == exactly(read(raw))
    assert exactly(read(sent)) == exactly(passing(fields) | {"model": "sql@4"})


@fuzzed(0.1)
@given(objects)
@watched
def test_an_object_is_not_refused(fields: dict[str, Any]) -> None:
    """Unless it has what the parser has no room for: numbers of thousands of digits, deep nesting, half characters."""
    raw = json.dumps(fields).encode()
    if b"[[[" in raw or '[{"a": [{"a"' in raw.decode() or b"\\ud" in raw:
        return
    assert exactly(body.parse(raw)) == exactly(fields)


@fuzzed(0.05)
@given(st.sampled_from(("n", "max_tokens", "top_k")), numbers | values)
@watched
def test_a_number_counts_as_the_engine_reads_it_or_is_refused(field: str, value: object) -> None:
    asked = {field: value}
    try:
        check_demands(asked, json.dumps(asked).encode())
    except InvalidBody as error:
        return told(error)
    try:
        expected = AS_THE_ENGINE.validate_python(value)
    except ValueError:
        expected = None
    assert integer(value) == expected


@fuzzed(0.15)
@given(objects.map(lambda fields: fields.get("merged_adapters")) | values)
@watched
def test_what_lorax_takes_is_a_mixture_or_refused(value: object) -> None:
    try:
        assert isinstance(merged_adapters(value), Mixture)
    except (InvalidBody, InvalidName) as error:
        told(error)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all cases of a property."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture
def echo(gate: Gate, publish: Publish) -> Echo:
    """An application behind a gate, over a store with a few adapters."""
    for name in ("sql", "sql", "date", "org/x"):
        publish(name)
    publish("wide", rank=17)
    return Echo(gate)


@fuzzed(0.25)
@given(asked=requests())
@watched
def test_the_gate_answers_and_what_passes_is_one_sound_request(
    runner: asyncio.Runner, echo: Echo, engine: FakeEngine, asked: Request
) -> None:
    echo.seen.clear()
    reply = runner.run(echo.answer(asked))
    assert engine.faults == []
    if not reply.starts:
        assert asked.leaves, "everybody else waits for an answer"
        return
    refused_well(reply)
    assert len(echo.seen) == (reply.starts == [200])
    for seen in echo.seen:
        if asked.method == "POST" and asked.path in SELECTING:
            rewritten_well(asked, seen)
        else:
            assert seen.body == asked.body or asked.leaves


def refused_well(reply: Reply) -> None:
    """One answer, and an error in OpenAI's shape unless all is well."""
    (status,) = reply.starts
    assert status in {200, 400, 401, 403, 404, 405, 413, 415, 429, 503}
    assert status != 503 or int(reply.headers[b"retry-after"]) > 0
    if status == 200:
        return
    assert int(reply.headers[b"content-length"]) == len(reply.body) <= TOLD
    error = json.loads(reply.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] != "internal_error"


def rewritten_well(request: Request, seen: Seen) -> None:
    """One body of one length, the fields that were given but for ours, and an adapter that is there."""
    headers = [(key.lower(), value) for key, value in seen.scope["headers"]]
    assert [value for key, value in headers if key == b"content-length"] == [str(len(seen.body)).encode()]
    assert [value for key, value in headers if key == b"transfer-encoding"] == []
    assert seen.after["type"] == "http.disconnect"
    given, sent = read(request.body), read(seen.body)
    assert sent["model"] in SERVED or "*" in sent["model"]
    assert exactly(passing(given) | {"model": sent["model"]}) == exactly(sent)


def test_strategies_reach_what_they_are_for(runner: asyncio.Runner, echo: Echo) -> None:
    """A body that is never accepted, or never refused, would show nothing."""
    found = set()

    @settings(max_examples=80, derandomize=True, database=None, deadline=None)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        found.update(runner.run(echo.answer(data.draw(requests()))).starts)

    draw()
    assert found >= {200, 400, 404, 415}
