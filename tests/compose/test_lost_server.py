"""Jobs whose server goes away."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from loraloom.adapters.store import Store
from loraloom.compose.backends import opened
from loraloom.compose.errors import ServerLost
from loraloom.compose.run import run
from loraloom.compose.trials import Trial
from tests.compose.conftest import MakeJob
from tests.compose.scorers.fake_loraloom import FakeLoraLoom
from tests.compose.test_run import told


def knows_all(request: httpx.Request) -> httpx.Response | None:
    return httpx.Response(200, json={}) if request.url.path.startswith("/v1/models/") else None


class Handler(BaseHTTPRequestHandler):
    """A `FakeLoraLoom` over HTTP, one request a connection."""

    loraloom = FakeLoraLoom(first=knows_all)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        response = self.loraloom(httpx.Request(self.command, f"http://fake{self.path}", content=body))
        self.send_response(response.status_code)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Lets as many wait as a job asks at once."""

    request_queue_size = 64


@pytest.fixture
def port() -> Iterator[int]:
    """A port for servers one after the other, which nobody else gets in between."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def served(port: int = 0) -> Iterator[tuple[str, Callable[[], None]]]:
    """A server's URL, and what ends it."""
    server = Server(("127.0.0.1", port), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def end() -> None:
        server.shutdown()
        server.server_close()

    try:
        yield f"http://127.0.0.1:{server.server_port}", end
    finally:
        end()
        thread.join()


def test_a_job_goes_on_where_its_server_was_lost(make_job: MakeJob, store: Store, port: int) -> None:
    with served(port) as (url, end):
        fields = {"holdout": 0.4, "scorer": "server", "publish": "never"}
        jobs = [make_job(server={"url": url, "patience": 0}, **fields) for _ in range(2)]

        def lose(trial: Trial) -> None:
            if trial.trial == 6:
                end()

        whole = run(jobs[0], store)
        with pytest.raises(ServerLost):
            run(jobs[1], store, lose)
    state = jobs[1].state()
    assert (state.status, state.trials) == ("interrupted", 13)  # the population that it was at is scored
    assert url in state.reason
    with served(port):
        assert run(jobs[1], store).chosen == whole.chosen
    assert told(jobs[0]) == told(jobs[1])


def test_a_server_is_asked_once_for_one_pool(make_job: MakeJob, store: Store) -> None:
    with served() as (url, _):
        job = make_job(holdout=0.4, scorer="server", server={"url": url, "patience": 0})
        with opened(job, store, 3) as backend:
            whole = backend.scorer(job.pool.members)
            assert backend.scorer(job.pool.members) is whole
            backend.truncated(job.pool.members, (1.0, 1.0, 1.0), 2)
            assert backend.scorer(job.pool.members) is not whole
