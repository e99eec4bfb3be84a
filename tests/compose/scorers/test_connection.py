"""Requests to a server that is busy, restarting or gone."""

import threading
from collections.abc import Iterator
from itertools import chain, repeat

import httpx
import pytest

from loraloom.compose.errors import InvalidSpec, ServerLost
from loraloom.compose.scorers import connection
from loraloom.compose.scorers.connection import Connection, error_of
from loraloom.compose.spec import Server
from tests.compose.scorers.fake_loraloom import refused

OK = httpx.Response(200, json={})


def connected(
    answers: Iterator[httpx.Response | Exception], patience: float = 60, url: str = "http://server"
) -> Connection:
    def answer(request: httpx.Request) -> httpx.Response:
        following = next(answers)
        if isinstance(following, Exception):
            raise following
        return following

    return Connection(Server(url=url, patience=patience), httpx.Client(transport=httpx.MockTransport(answer)))


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("too slow"),
        httpx.RemoteProtocolError("closed"),
        httpx.Response(429),
        refused(503, "too_many_adapters", "no place"),
        refused(500, "internal_error", "the engine died"),
        httpx.Response(502, text="<html>"),
    ],
)
def test_what_passes_is_waited_for(trouble: httpx.Response | Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    assert connected(iter([trouble, trouble, OK])).ask("GET", "/ready").status_code == 200


@pytest.mark.parametrize("status", [400, 401, 404, 409])
def test_a_refusal_is_an_answer(status: int) -> None:
    assert connected(iter([httpx.Response(status)])).ask("GET", "/ready").status_code == status


def test_a_server_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    lost = connected(repeat(refused(503, "engine_unavailable", "it is being restarted")), patience=0.02)
    with pytest.raises(ServerLost, match=r"for 0.02 s: 503 it is being restarted. Resume the job when it does"):
        lost.ask("GET", "/ready")


def test_patience_begins_anew_with_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the clock, so that the test does not wait: each trouble takes 50 s of a patience of 60 s."""
    now = 0.0

    def later() -> float:
        return now

    def answers() -> Iterator[httpx.Response]:
        nonlocal now
        for _ in range(3):
            now += 50
            yield httpx.Response(503)
            yield OK
        yield httpx.Response(503)
        now += 61
        yield httpx.Response(503)

    monkeypatch.setattr(connection.time, "monotonic", later)
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    patient = connected(answers())
    for _ in range(3):
        assert patient.ask("GET", "/ready").status_code == 200
    with pytest.raises(ServerLost):
        patient.ask("GET", "/ready")


def test_it_waits_as_long_as_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []

    class Noted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return False

    busy = httpx.Response(503, headers={"retry-after": "7"})
    odd = httpx.Response(503, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    connected(chain([busy, odd, odd], [OK])).ask("GET", "/ready", gone=Noted())
    assert waited == [7, pytest.approx(0.2), pytest.approx(0.4)]


def test_nobody_waits_any_more() -> None:
    gone = threading.Event()
    gone.set()
    with pytest.raises(ServerLost, match="given up"):
        connected(repeat(httpx.Response(503))).ask("GET", "/ready", gone=gone)


@pytest.mark.parametrize("url", ["server:8000", "ftp://server", "http://[::1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidSpec, match="is no URL"):
        Connection(Server(url=url, patience=0)).ask("GET", "/ready")


def test_a_client_of_its_own_is_closed_and_anothers_is_not() -> None:
    client = httpx.Client()
    Connection(Server(), client).close()
    assert not client.is_closed
    own = Connection(Server())
    own.close()
    with pytest.raises(RuntimeError, match="closed"):
        own.ask("GET", "/ready")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refused(400, "invalid_model", "bad"), ("invalid_model", "bad")),
        (httpx.Response(404, json={"detail": "Not Found"}), (None, '{"detail":"Not Found"}')),
        (httpx.Response(404, json={"error": "x"}), (None, '{"error":"x"}')),
        (httpx.Response(404), (None, "Not Found")),
    ],
)
def test_what_a_refusal_says(answer: httpx.Response, expected: tuple[str | None, str]) -> None:
    assert error_of(answer) == expected
