"""Request bodies: read within a limit, parsed once, written back."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from loraloom.server.errors import BodyTooLarge, BodyTooSlow, Disconnected, InvalidBody, WrongContentType
from loraloom.server.gate.exchange import Exchange, Message, Receive, Scope
from loraloom.server.gate.patience import within

_LENGTH_DIGITS = 20
VALUES, PROMPTS, LIST = 200_000, 8, 4
"""A body may have so many values and those of so many prompts of full length; a list or an object counts as several."""
LATE = 1.0
"""Seconds within which bodies mostly come."""


def check_declared_length(exchange: Exchange, limit: int) -> None:
    """Refuse a body whose own header says that it is too large, before a byte of it is read.

    Raises:
        BodyTooLarge: `content-length` exceeds the limit.
        InvalidBody: `content-length` is no number.
    """
    declared = exchange.header(b"content-length")
    if declared is None:
        return
    if not declared.isdecimal():
        raise InvalidBody("content-length is not a number")
    if len(declared) > _LENGTH_DIGITS or int(declared) > limit:
        raise BodyTooLarge(f"the body has {declared[:_LENGTH_DIGITS]} bytes; this server takes up to {limit}")


def is_form(exchange: Exchange) -> bool:
    """Whether the body says that it is a form with files."""
    return _media_type(exchange) == "multipart/form-data"


def _media_type(exchange: Exchange) -> str:
    return (exchange.header(b"content-type") or "").partition(";")[0].strip().lower()


def check_json_type(exchange: Exchange) -> None:
    """Refuse what does not say that it is JSON.

    Raises:
        WrongContentType: another media type, or an encoded body.
    """
    media_type = _media_type(exchange)
    if media_type != "application/json":
        raise WrongContentType(f"send JSON with `content-type: application/json`, not {media_type or 'without one'!r}")
    if (encoding := exchange.header(b"content-encoding") or "identity") != "identity":
        raise WrongContentType(f"send the body as it is, not with `content-encoding: {encoding[:50]}`")


async def read(receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: it is longer than `limit` bytes.
        Disconnected: the client left.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise BodyTooLarge(f"the body has more than the {limit:,} bytes that this server takes")
        if not message.get("more_body", False):
            return b"".join(chunks)


def check_values(raw: bytes, context: int) -> None:
    """Refuse a body of so many values that to parse it would hold up everybody: a list in JSON takes two bytes.

    Args:
        raw: the body.
        context: tokens that the engine takes at a time, each of which may be a value.

    Raises:
        BodyTooLarge: it has more than a few prompts can have.
    """
    most = VALUES + PROMPTS * context
    found = raw.count(b",") + LIST * (raw.count(b"[") + raw.count(b"{"))
    if found > most:
        raise BodyTooLarge(
            "the body has too many values: a request takes a few prompts of "
            f"{context:,} tokens at most; send them in several requests"
        )


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        InvalidBody: it is not UTF-8, not JSON, or no object.
    """
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidBody(f"the body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidBody(f"the body must be a JSON object, not {type(value).__name__}")
    return value


def written(body: Mapping[str, Any]) -> bytes:
    """The body as JSON again.

    Raises:
        InvalidBody: it has a number beyond what a double holds, such as 1e400, which would become `Infinity`.
    """
    raw = to_json(body)
    if b"Infinity" in raw:
        try:
            json.dumps(body, allow_nan=False)
        except ValueError as error:
            raise InvalidBody("the body has a number that is too large") from error
    return raw


def counted(receive: Receive, limit: int, patience: float) -> Receive:
    """A `receive` that raises `BodyTooLarge` as soon as more than `limit` bytes have passed.

    Until the body is complete it raises `BodyTooSlow` when no part of it comes for `patience` seconds.
    """
    passed, complete = 0, False

    async def next_part() -> Message:
        if complete:  # what is awaited now is that the client leaves
            return await receive()
        try:
            return await within(patience, receive())
        except TimeoutError:
            raise BodyTooSlow(f"no part of the body has come for {patience:g} s: send the request again") from None

    async def counting() -> Message:
        nonlocal passed, complete
        message = await next_part()
        complete = not message.get("more_body", False)
        passed += len(message.get("body", b""))
        if passed > limit:
            raise BodyTooLarge(f"the body has more than the {limit:,} bytes that this server takes")
        return message

    return counting


def when_late(receive: Receive, check: Callable[[], None]) -> Receive:
    """A `receive` that calls `check` again, which may raise, with the last part of a body that took its time.

    A request begins with its headers. By the end of its body, its key may be over.
    """
    began = time.monotonic()

    async def checking() -> Message:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body") and time.monotonic() - began > LATE:
            check()
        return message

    return checking


async def leaving(receive: Receive) -> None:
    """Return when the client leaves; its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


def replayed(body: Mapping[str, Any], scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """Scope and `receive` that deliver another body once, then the real channel.

    The engine's server listens for the client leaving by calling `receive` again, so it must get the real one.

    Raises:
        InvalidBody: it cannot be written as JSON.
    """
    raw = written(body)
    headers = [(key, value) for key, value in scope["headers"] if key not in (b"content-length", b"transfer-encoding")]
    scope = {**scope, "headers": [*headers, (b"content-length", str(len(raw)).encode())]}
    delivered = False

    async def replay() -> Message:
        nonlocal delivered, raw
        if delivered:
            return await receive()
        delivered, sent, raw = True, raw, b""
        return {"type": "http.request", "body": sent, "more_body": False}

    return scope, replay
