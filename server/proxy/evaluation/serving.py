"""A server as a child process: started, waited for, and ended whatever happens."""

import contextlib
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loraloom.server.proxy.evaluation.errors import EvaluationFailed

GRACE = 90.0
"""Seconds that a server gets to end; it drains for 30 at most, and its engine takes some to free its memory."""
_TAIL = 3000
_PAUSE = 0.25


@dataclass(frozen=True)
class Start:
    """How to start a server.

    Attributes:
        command: its command line.
        port: where it will listen, on 127.0.0.1.
        folder: in which it runs.
        log: the file for everything that it prints.
        environment: all of its variables.
        patience: seconds that it may take to start.
    """

    command: Sequence[str]
    port: int
    folder: Path
    log: Path
    environment: Mapping[str, str]
    patience: float

    @property
    def url(self) -> str:
        """Where it will listen."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(start: Start) -> Iterator[str]:
    """Start a server, wait until it is ready, give its URL, and end it.

    Raises:
        EvaluationFailed: it ends or takes too long, with the end of its log.
        OSError: it cannot be started.
    """
    process = _started(start)
    try:
        _wait_until_ready(process, start)
        yield start.url
    finally:
        _end(process)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _started(start: Start) -> "subprocess.Popen[bytes]":
    with start.log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the server in order.
        return subprocess.Popen(
            start.command,
            cwd=start.folder,
            env=dict(start.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_ready(process: "subprocess.Popen[bytes]", start: Start) -> None:
    # No proxy for the world outside stands between this process and its server.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + start.patience
    while time.monotonic() < end:
        if process.poll() is not None:
            raise EvaluationFailed(f"the server ended with status {process.returncode}. {_told(start.log)}")
        with contextlib.suppress(OSError), direct.open(f"{start.url}/ready", timeout=5):
            return
        time.sleep(_PAUSE)
    raise EvaluationFailed(
        f"the server was not ready within {start.patience:g} s (`start_timeout`). {_told(start.log)}"
    )


def _told(log: Path) -> str:
    tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    return f"Its log, {log}, ends with:\n{tail}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and SIGKILL for one that does not mind; what it has started ends when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
