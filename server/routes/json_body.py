"""Small bodies of JSON, such as most of our own routes take: parsed at once, since there is a limit to them."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from loraloom.server.errors import InvalidBody, WrongContentType
from loraloom.server.gate.body import parse, read
from loraloom.server.routes.gated import first_problem

M = TypeVar("M", bound=BaseModel)

LIMIT = 2**20
"""Bytes: to parse more than that would hold up everybody."""


def media_type(request: Request) -> str:
    """What a request says that its body is, in small letters; empty if it says nothing."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def received(request: Request, kind: type[M], what: str) -> M:
    """The body of a request.

    Args:
        request: whose body has not been read.
        kind: what it is.
        what: the same in words.

    Raises:
        WrongContentType: it does not say that it is JSON.
        BodyTooLarge: it is longer than `LIMIT`.
        InvalidBody: it is not JSON, or something else.
    """
    if (given := media_type(request)) != "application/json":
        raise WrongContentType(f"send JSON with `content-type: application/json`, not {given[:100] or 'without one'!r}")
    fields = parse(await read(request.receive, LIMIT))
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise InvalidBody(f"the body must be {what}; {first_problem(error.errors())}") from error
