"""Bodies: limits, what counts as JSON, and that rewriting changes nothing but what it shall."""

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loraloom.server.access.access import ANYONE
from loraloom.server.errors import BodyTooLarge, Disconnected, InvalidBody, WrongContentType
from loraloom.server.gate import body
from loraloom.server.gate.exchange import Choice, Exchange, Message, Receive
from loraloom.server.gate.privileges import DROPPED_FIELDS, for_the_engine
from loraloom.server.observe.account import Account

LIMIT = 100


def exchange(**headers: str) -> Exchange:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def nothing(*_: Any) -> Any:
        raise AssertionError("looking at headers needs no body and sends no answer")

    return Exchange({"type": "http", "headers": raw}, nothing, nothing, Account("r1"))


def channel(*messages: Message) -> Receive:
    """A `receive` that delivers these messages; one more call fails."""
    queue = iter(messages)

    async def receive() -> Message:
        return next(queue)

    return receive


def chunks(parts: Iterable[bytes]) -> list[Message]:
    *first, last = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    return [*first, {**last, "more_body": False}]


DISCONNECT: Message = {"type": "http.disconnect"}


@pytest.mark.parametrize("length", ["0", "99", "100", "00000100"])
def test_a_declared_length_within_the_limit(length: str) -> None:
    body.check_declared_length(exchange(content_length=length), LIMIT)


def test_no_declared_length() -> None:
    body.check_declared_length(exchange(), LIMIT)


@pytest.mark.parametrize("length", ["101", "2147483648", "9" * 5000])
def test_a_declared_length_over_the_limit(length: str) -> None:
    with pytest.raises(BodyTooLarge, match="takes up to 100"):
        body.check_declared_length(exchange(content_length=length), LIMIT)


@pytest.mark.parametrize("length", ["", "-1", "+5", "1e3", "0x10", "ten", "1, 1", "\u00b2"])
def test_a_declared_length_that_is_no_number(length: str) -> None:
    with pytest.raises(InvalidBody, match="content-length"):
        body.check_declared_length(exchange(content_length=length), LIMIT)


@pytest.mark.parametrize("media", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_what_says_that_it_is_json(media: str) -> None:
    body.check_json_type(exchange(content_type=media))
    body.check_json_type(exchange(content_type=media, content_encoding="identity"))


@pytest.mark.parametrize("media", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_does_not(media: str | None) -> None:
    headers = {} if media is None else {"content_type": media}
    with pytest.raises(WrongContentType, match="application/json"):
        body.check_json_type(exchange(**headers))


def test_an_encoded_body() -> None:
    with pytest.raises(WrongContentType, match="content-encoding: gzip"):
        body.check_json_type(exchange(content_type="application/json", content_encoding="gzip"))


async def test_a_body_in_parts_is_one() -> None:
    assert await body.read(channel(*chunks([b'{"a"', b"", b":1}"])), LIMIT) == b'{"a":1}'


async def test_a_message_without_a_body_is_an_empty_part() -> None:
    assert await body.read(channel({"type": "http.request"}), LIMIT) == b""


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    endless = channel(*({"type": "http.request", "body": b"x" * 40, "more_body": True} for _ in range(3)))
    with pytest.raises(BodyTooLarge, match="more than the 100 bytes"):
        await body.read(endless, LIMIT)


async def test_a_body_of_just_the_limit() -> None:
    assert len(await body.read(channel(*chunks([b"x" * 50] * 2)), LIMIT)) == LIMIT


async def test_a_client_that_leaves_before_its_body_has_arrived() -> None:
    first = {"type": "http.request", "body": b"{", "more_body": True}
    with pytest.raises(Disconnected):
        await body.read(channel(first, DISCONNECT), LIMIT)


async def test_counting_hands_on_every_message_up_to_the_limit() -> None:
    messages = [*chunks([b"x" * 50] * 2), DISCONNECT]
    counting = body.counted(channel(*messages), LIMIT, 60)
    assert [await counting() for _ in messages] == messages


async def test_counting_stops_at_the_limit() -> None:
    counting = body.counted(channel(*chunks([b"x" * 50] * 3)), LIMIT, 60)
    assert [len((await counting())["body"]) for _ in range(2)] == [50, 50]
    with pytest.raises(BodyTooLarge):
        await counting()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1}}',
        b'{"a":1} {"b":2}',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":\xff}',
        b'{"a":"\xff\xfe"}',
        b'{"a":"\\ud800"}',
        b'{"a":01}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b"\x80\x04\x95",
    ],
)
def test_what_is_not_json(raw: bytes) -> None:
    with pytest.raises(InvalidBody, match="not valid JSON"):
        body.parse(raw)


@pytest.mark.parametrize("raw", [b"[]", b'"model"', b"1", b"null", b"true"])
def test_json_that_is_no_object(raw: bytes) -> None:
    with pytest.raises(InvalidBody, match="must be a JSON object"):
        body.parse(raw)


def test_of_a_key_given_twice_the_last_counts_and_only_that_goes_on() -> None:
    """What is checked is what the engine's server gets, which another parser might read otherwise."""
    fields = body.parse(b'{"model":"sql","model":"date"}')
    assert fields == {"model": "date"}
    assert body.written(fields) == b'{"model":"date"}'


@pytest.mark.parametrize("number", ["1e400", "-1e999", '[0, {"x": 1e309}]'])
def test_a_number_beyond_a_double_does_not_become_infinity(number: str) -> None:
    fields = body.parse(f'{{"temperature":{number}}}'.encode())
    with pytest.raises(InvalidBody, match="too large"):
        body.written(fields)


def test_the_word_infinity_is_fine_in_a_text() -> None:
    fields = {"prompt": "To Infinity and beyond", "Infinity": 1}
    assert json.loads(body.written(fields)) == fields


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**63, max_value=10**300),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
objects = st.dictionaries(
    st.one_of(st.sampled_from(["model", "messages", *sorted(DROPPED_FIELDS)]), st.text(max_size=8)), values, max_size=8
)


def same(left: object, right: object) -> bool:
    """Equal, with the same types and signs of zero, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


@settings(deadline=None, max_examples=60)
@given(objects)
@example({"seed": 2**64 + 1, "logit_bias": {"50256": -100.0}, "temperature": 0.1, "top_p": -0.0, "n": 1.0})
@example({"messages": [{"content": "\u2028 \x00 \U0001f600 </script> \x7f"}]})
@example({"model": None, "adapter": {"name": "sql"}, "adapter_id": 1, "merged_adapters": [], "adapter_source": "s3"})
def test_rewriting_changes_nothing_but_the_model_and_our_fields(fields: dict[str, Any]) -> None:
    received = body.parse(json.dumps(fields, ensure_ascii=False).encode())
    assert same(received, fields)
    assert same(body.parse(json.dumps(fields, ensure_ascii=True).encode()), fields)
    sent = json.loads(body.written(for_the_engine(received, Choice("sql@4"), ANYONE, share_cache=True)))
    kept = {key: value for key, value in fields.items() if key not in DROPPED_FIELDS}
    ours = {"cache_salt", "priority"}
    assert same({**kept, "model": "sql@4"}, {key: value for key, value in sent.items() if key not in ours})


async def test_a_replayed_body_comes_once_and_then_the_real_channel() -> None:
    headers = [(b"host", b"x"), (b"content-length", b"99"), (b"transfer-encoding", b"chunked"), (b"x-a", b"1")]
    scope = {"type": "http", "headers": headers}
    after: Message = {"type": "http.request", "body": b"more", "more_body": False}
    new_scope, receive = body.replayed({"model": "sql@4"}, scope, channel(after, DISCONNECT))
    raw = b'{"model":"sql@4"}'
    assert await receive() == {"type": "http.request", "body": raw, "more_body": False}
    assert await receive() == after
    assert await receive() == DISCONNECT
    assert new_scope["headers"] == [(b"host", b"x"), (b"x-a", b"1"), (b"content-length", str(len(raw)).encode())]
    assert scope["headers"] == headers


async def test_the_length_is_that_of_the_bytes() -> None:
    scope, receive = body.replayed({"prompt": "ü😀"}, {"headers": []}, channel())
    assert dict(scope["headers"])[b"content-length"] == str(len((await receive())["body"])).encode()
