"""What every answer with an error must look like."""

from typing import Any

import httpx


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The error of a reply, whose shape must be OpenAI's."""
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return dict(body["error"])


def told(reply: httpx.Response) -> tuple[int, str]:
    """How an error was told: the status and the code."""
    return reply.status_code, error_of(reply)["code"]
