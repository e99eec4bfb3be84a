"""Servers to compare: LoraLoom, and vLLM's own without it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.errors import InvalidRun

PATIENCE = 400.0
"""Seconds that two engines may take to start at the same time; on two cores they take about one and a half minutes."""
GRACE = 60.0
"""Seconds that a server gets to end."""
VLLM = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
"""vLLM's server: the one module for it that all supported versions have."""
LORALOOM = (sys.executable, "-m", "loraloom.server.cli", "serve")


@dataclass(frozen=True)
class Start:
    """How to start a server.

    Attributes:
        name: what it is called in the results.
        command: its command line.
        port: where it will listen, on 127.0.0.1.
        environment: the only variables of `LORALOOM_*` and `VLLM_*` that it gets.
    """

    name: str
    command: Sequence[str]
    port: int
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Server:
    """A server that has been started, and may not be ready yet.

    Attributes:
        name: what it is called in the results.
        url: where it listens.
        process: its first process.
        log: everything that it prints.
    """

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_ready(self) -> None:
        """Return when it answers; raises `InvalidRun` when it ends or takes too long."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            time.sleep(0.5)
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise InvalidRun(f"{self.name} did not start; the end of its log:\n{tail}")


@contextlib.contextmanager
def started(start: Start, folder: Path) -> Iterator[Server]:
    """Start a server, and end it with all its processes; it runs in `folder`, where its log goes."""
    log = folder / f"{start.name}.log"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LORALOOM_", "VLLM_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            start.command,
            cwd=folder,
            env={**inherited, "HF_HUB_OFFLINE": "1", **start.environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Server(start.name, f"http://127.0.0.1:{start.port}", process, log)
    finally:
        _end(process)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
