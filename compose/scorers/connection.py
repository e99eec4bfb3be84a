"""Requests to a running LoraLoom, patient with one that is busy, restarting or out of reach for a while."""

import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx

from loraloom.compose.errors import InvalidSpec, ServerLost
from loraloom.compose.spec import Server

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two attempts: each pause is twice the one before."""
_LOOPBACK = re.compile(r"https?://(127\.|localhost\b|\[::1\])")
NOT_NOW = (429, 500, 502, 503, 504)
"""Answers that another attempt may not get."""


class Connection:
    """One server. Thread-safe.

    Attributes:
        url: the server's.
    """

    def __init__(self, server: Server, client: httpx.Client | None = None, key: str | None = None) -> None:
        """
        Args:
            server: where it is, and how patient to be.
            client: to send with; this one is not closed here.
            key: shown to the server with every request.
        """
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self.url = server.url.rstrip("/")
        self._patience = server.patience
        self._owned = client is None
        limits = httpx.Limits(max_connections=server.concurrency)
        # A proxy for the world outside does not reach this machine.
        outside = not _LOOPBACK.match(server.url)
        self._client = client or httpx.Client(timeout=server.timeout, limits=limits, trust_env=outside)
        self._heard = float("-inf")

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, gone: threading.Event | None = None
    ) -> httpx.Response:
        """What the server answers, refusals included.

        Args:
            method, path, body: the request; the body becomes JSON.
            gone: set by somebody else when nobody waits for the answer any more.

        Raises:
            ServerLost: no request got an answer for as long as the server's `patience`.
            InvalidSpec: the URL is none.
        """
        began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            outcome = self._attempt(method, path, body)
            if isinstance(outcome, httpx.Response) and outcome.status_code not in NOT_NOW:
                self._heard = time.monotonic()
                return outcome
            left = self._patience - (time.monotonic() - max(began, self._heard))
            if left <= 0:
                raise ServerLost(
                    f"the server {self.url} has not answered for {self._patience:g} s: {_reason(outcome)}. Resume the "
                    "job when it does"
                )
            if (gone or threading.Event()).wait(min(max(pause, _wanted_pause(outcome)), left)):
                raise ServerLost(f"the request to {self.url} was given up")
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            self._client.close()

    def _attempt(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response | httpx.TransportError:
        try:
            return self._client.request(method, self.url + path, json=body, headers=self._headers)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise InvalidSpec(
                f"server.url: {self.url!r} is no URL of a server, such as http://127.0.0.1:8000"
            ) from error
        except httpx.TransportError as error:
            return error


def error_of(answer: httpx.Response) -> tuple[str | None, str]:
    """The code and the message of a refusal, as far as it has OpenAI's shape."""
    try:
        error = answer.json()["error"]
        return error.get("code"), str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, answer.text[:200] or answer.reason_phrase


def _reason(outcome: httpx.Response | httpx.TransportError) -> str:
    if isinstance(outcome, httpx.TransportError):
        return f"{type(outcome).__name__} {outcome}".strip()
    return f"{outcome.status_code} {error_of(outcome)[1]}"


def _wanted_pause(outcome: httpx.Response | httpx.TransportError) -> float:
    """Seconds that the server asks to wait."""
    wanted = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return float(wanted) if wanted.isdecimal() else 0.0
