"""The supervisor, as a real process over real servers: nothing that a client sends is lost, and no process is left."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from loraloom.server.errors import InvalidSettings
from loraloom.server.supervisor import address, listen

PATIENCE = 60.0
"""Seconds after which a test that waits for something fails."""
ROOT = Path(__file__).parents[2]


def ended(descriptor: int) -> bool:
    """Whether a process, by its pidfd, ends in time."""
    return bool(select.select([descriptor], [], [], PATIENCE)[0])


def has_ipv6() -> bool:
    """Whether this machine can be reached by IPv6 from itself."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


class Server:
    """A fake server that the supervisor has started, and its line to the test."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(PATIENCE)
        self._line = line
        self._words = line.makefile()
        self.about = json.loads(self._words.readline())
        self.pid: int = self.about["pid"]
        self.process = os.pidfd_open(self.pid)
        self.helper = os.pidfd_open(self.about["helper"])

    def tell(self, words: str) -> None:
        self._line.sendall(f"{words}\n".encode())

    def heard(self) -> str:
        """The next word from the server; empty when it has ended."""
        return self._words.readline().strip()

    def kill(self) -> None:
        """kill -9, until it is dead."""
        signal.pidfd_send_signal(self.process, signal.SIGKILL)
        assert ended(self.process)

    def close(self) -> None:
        self._words.close()
        self._line.close()
        os.close(self.process)
        os.close(self.helper)


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, **options: float) -> None:
        self._meeting = socket.socket(socket.AF_UNIX)
        self._meeting.settimeout(PATIENCE)
        self._meeting.bind(str(folder / "meeting"))
        self._meeting.listen()
        self._log = folder / "log"
        self.servers: list[Server] = []
        command = [sys.executable, "-m", "tests.server.supervised", str(folder / "meeting"), json.dumps(options)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def server(self, *words: str) -> Server:
        """The next server that it starts, after telling it something."""
        server = Server(self._meeting.accept()[0])
        self.servers.append(server)
        for word in words:
            server.tell(word)
        return server

    def get(self) -> tuple[int, bytes]:
        """Status and body of one request, on a connection of its own."""
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            reply = connection.getresponse()
            return reply.status, reply.read()

    def status(self) -> int:
        """The exit status, once it ends."""
        return self.process.wait(PATIENCE)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def says(self, words: str) -> bool:
        """Whether it says something in time."""
        end = time.monotonic() + PATIENCE
        while words not in self.said and time.monotonic() < end:
            time.sleep(0.01)
        return words in self.said

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.close()
        self._meeting.close()


Supervise = Callable[..., Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """A callable `supervise(max_restarts=…, first_pause=…) -> Supervised`; all that it started has ended at the end."""
    with contextlib.ExitStack() as stack:

        def start(**options: float) -> Supervised:
            supervised = Supervised(tmp_path, **{"max_restarts": 5, "outlives": 1000, "first_pause": 0.01, **options})
            stack.callback(supervised.close)
            return supervised

        yield start


def wait_for(supervised: Supervised, status: int) -> None:
    """Ask until the answer has this status; any other than 200 and 503 fails."""
    while (seen := supervised.get()[0]) != status:
        assert seen in (200, 503)


class Clients:
    """Several clients that ask without a pause, with a new connection for each request.

    Attributes:
        seen: what each client got, in order: the process identifier of a server, or 503.
        lost: what went wrong.
    """

    def __init__(self, supervised: Supervised, number: int) -> None:
        self.seen: list[list[int]] = [[] for _ in range(number)]
        self.lost: list[Exception] = []
        self._supervised = supervised
        self._turns = [threading.Lock() for _ in range(number)]
        self._enough = threading.Event()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """They ask until the end of the block."""
        threads = [threading.Thread(target=self._ask, args=each) for each in zip(self.seen, self._turns, strict=True)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._enough.set()
            for thread in threads:
                thread.join()

    @contextlib.contextmanager
    def between_requests(self) -> Iterator[None]:
        """In this block none of them is waiting for an answer."""
        with contextlib.ExitStack() as stack:
            for turn in self._turns:
                stack.enter_context(turn)
            yield

    def wait_for(self, answer: int) -> None:
        """Return when each of them has got this answer."""
        pause = threading.Event()
        for _ in range(int(PATIENCE / 0.01)):
            if self.lost or all(answer in seen for seen in self.seen):
                return
            pause.wait(0.01)
        raise AssertionError(f"not every client got {answer}")

    def _ask(self, seen: list[int], turn: threading.Lock) -> None:
        while not self._enough.is_set():
            with turn:
                try:
                    status, body = self._supervised.get()
                except (OSError, HTTPException) as error:
                    self.lost.append(error)
                    return
                seen.append(int(body) if status == 200 else status)


def in_turn(answers: list[int]) -> list[int]:
    """The answers without repetitions."""
    return [answer for answer, _ in groupby(answers)]


def test_while_the_server_starts(supervise: Supervise) -> None:
    supervised = supervise()
    reply = httpx.get(f"{supervised.url}/v1/models", timeout=PATIENCE)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
    assert int(reply.headers["retry-after"]) > 0


def test_what_a_server_is_given(supervise: Supervise) -> None:
    about = supervise().server().about
    assert (about["model"], about["given"]) == ("fake", "by the launch")


def test_clients_lose_nothing_from_start_to_restart(supervise: Supervise) -> None:
    supervised = supervise()
    clients = Clients(supervised, 3)
    with clients.asking():
        first = supervised.server()
        clients.wait_for(503)
        first.tell("ready")
        clients.wait_for(first.pid)
        with clients.between_requests():
            first.kill()
        second = supervised.server("ready")
        clients.wait_for(second.pid)
    assert clients.lost == []
    # A client that asks while the socket changes hands may get either answer.
    served = [in_turn([answer for answer in seen if answer != 503]) for seen in clients.seen]
    assert served == [[first.pid, second.pid]] * 3
    assert all(seen[0] == 503 for seen in clients.seen)


def test_between_death_and_restart(supervise: Supervise) -> None:
    supervised = supervise()
    supervised.server("ready")
    wait_for(supervised, 200)
    supervised.servers[0].kill()
    assert supervised.get()[0] == 503
    supervised.server("ready")
    wait_for(supervised, 200)
    assert "the server died; restarting it in 0.01 s" in supervised.said


@pytest.mark.parametrize("words", [("ready", "exit 0"), ("exit 3",)], ids=["after it was ready", "while it starts"])
def test_too_many_deaths_end_it(supervise: Supervise, words: tuple[str, ...]) -> None:
    supervised = supervise(max_restarts=2)
    supervised.server("ready", "exit 1")
    supervised.server(*words)
    supervised.server(*words)
    assert supervised.status() == 1
    assert "the server died 3 times within 600 s: giving up" in supervised.said


def test_pauses_grow(supervise: Supervise) -> None:
    supervised = supervise(first_pause=0.01, longest_pause=0.03)
    for _ in range(3):
        supervised.server("ready", "exit 1")
    supervised.server()
    pauses = [line.split(" in ")[1] for line in supervised.said.splitlines() if "restarting" in line]
    assert pauses == ["0.01 s", "0.02 s", "0.03 s"]


def test_deaths_long_ago_are_forgotten(supervise: Supervise) -> None:
    supervised = supervise(max_restarts=1, window=0)
    for _ in range(2):
        supervised.server("ready", "exit 1")
    supervised.server("ready")
    wait_for(supervised, 200)


@pytest.mark.parametrize("status", [0, 3])
def test_a_first_start_that_fails_ends_it_at_once(supervise: Supervise, status: int) -> None:
    supervised = supervise()
    supervised.server(f"exit {status}")
    assert supervised.status() == 1
    assert "the server did not start" in supervised.said
    assert len(supervised.servers) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [(), ("ready",)], ids=["while it starts", "when it is ready"])
def test_a_signal_ends_both(supervise: Supervise, number: signal.Signals, words: tuple[str, ...]) -> None:
    supervised = supervise()
    server = supervised.server(*words)
    if words:
        wait_for(supervised, 200)
    supervised.process.send_signal(number)
    assert server.heard() == "terminated"
    server.tell("exit 0")
    assert supervised.status() == 0
    assert ended(server.helper)
    with pytest.raises(ConnectionRefusedError):
        supervised.get()


def test_a_draining_server_takes_no_more_requests(supervise: Supervise) -> None:
    supervised = supervise(exit_grace=1000)
    server = supervised.server("ready")
    wait_for(supervised, 200)
    supervised.process.terminate()
    assert server.heard() == "terminated"
    wait_for(supervised, 503)
    assert supervised.process.poll() is None
    server.tell("exit 0")
    assert supervised.status() == 0


def test_a_server_that_does_not_end_is_killed(supervise: Supervise) -> None:
    supervised = supervise(exit_grace=0.01)
    server = supervised.server("ready")
    wait_for(supervised, 200)
    supervised.process.terminate()
    assert supervised.status() == 0
    assert ended(server.process)
    assert ended(server.helper)


def test_a_signal_between_two_servers(supervise: Supervise) -> None:
    supervised = supervise(first_pause=1000, longest_pause=1000)
    assert ended(supervised.server("ready", "exit 1").process)
    assert supervised.says("restarting it in 1000 s")
    assert supervised.get()[0] == 503
    supervised.process.terminate()
    assert supervised.status() == 0
    assert len(supervised.servers) == 1


def test_a_server_ends_with_its_supervisor(supervise: Supervise) -> None:
    """Also when that is killed: the server hears of it by the channel between them."""
    supervised = supervise(outlives=1000)
    server = supervised.server("ready")
    wait_for(supervised, 200)
    supervised.process.kill()
    assert server.heard() == "terminated"
    server.tell("exit 0")
    assert ended(server.process)


def test_a_server_without_a_supervisor_that_does_not_end_is_killed(supervise: Supervise) -> None:
    supervised = supervise(outlives=0.01)
    server = supervised.server("ready")
    wait_for(supervised, 200)
    supervised.process.kill()
    assert ended(server.process)
    assert ended(server.helper)


def test_what_a_killed_server_had_started_is_swept(supervise: Supervise) -> None:
    supervised = supervise()
    server = supervised.server("ready")
    server.kill()
    assert ended(server.helper)


def test_a_port_in_use() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=rf"127.0.0.1:{port} \(Address already in use\): stop"):
            listen("127.0.0.1", port)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux gives such clients up by itself")
def test_a_client_that_takes_nothing_loses_its_connection() -> None:
    """Though its machine answers the kernel's probes for ever."""
    with listen("127.0.0.1", 0, patience=0.1) as listening, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(listening.getsockname())
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted, pytest.raises(TimeoutError, match="Connection timed out"):
            accepted.sendall(bytes(100_000_000))  # more than any buffers hold


def test_a_host_that_is_none() -> None:
    with pytest.raises(InvalidSettings, match=r"cannot listen on no host:0 .*: check --host"):
        listen("no host", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:"),
        pytest.param("::1", "http://[::1]:", marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")),
    ],
)
def test_the_url_of_a_socket(host: str, url: str) -> None:
    with listen(host, 0) as listening:
        assert address(listening).startswith(url)
        with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
            client.get(address(listening), timeout=httpx.Timeout(PATIENCE, read=0.01))
