"""A real server, started as a user would start it, for the length of a test session."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

BASE = "smollm2"
ORIGIN = "https://example.org"
SEQUENCES = 16
SLOTS = 4
CPU_TIER = 6
MIXTURE_CACHE = 90 * 2**20
"""Bytes for built mixtures: ten of two rank-8 demo adapters."""
START = 420.0
"""Seconds that an engine may take to start; alone on two cores it takes about one minute."""


@dataclass(frozen=True)
class Server:
    """A running `loraloom serve`.

    Attributes:
        url: where it listens.
        store: its adapter store.
        process: the supervisor.
        log: everything that it has printed.
    """

    url: str
    store: Path
    process: subprocess.Popen[bytes]
    log: Path

    def client(self) -> httpx.Client:
        """An HTTP client for it."""
        return httpx.Client(base_url=self.url, timeout=120)

    def request(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Its answer to one request, by a connection of its own."""
        with self.client() as client:
            return client.request(method, path, **what)

    def engine(self) -> set[int]:
        """The process identifiers of the engine and its workers."""
        return {pid for pid, line in self.processes().items() if line.startswith("VLLM::")}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `loraloom adapters …` on its store."""
        line = [sys.executable, "-m", "loraloom.server.cli", "adapters", words[0], "--adapters", str(self.store)]
        return subprocess.run([*line, *words[1:]], capture_output=True, text=True, check=False, timeout=120)

    def processes(self) -> dict[int, str]:
        """The process identifiers below the supervisor, with their command lines."""
        found: dict[int, str] = {}
        parents = {self.process.pid}
        while parents:
            children = {pid for parent in parents for pid in _children(parent)}
            found |= {pid: _command_line(pid) for pid in children}
            parents = children
        return found

    def wait_until_ready(self, patience: float = START) -> None:
        """Return when /ready answers 200; fail when the supervisor ends or the time is up."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.tail()}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                return
            time.sleep(0.5)
        raise AssertionError(f"the server was not ready within {patience:.0f} s:\n{self.tail()}")

    def printed(self) -> str:
        """All that it has printed so far."""
        return _printed(self.log)

    def tail(self) -> str:
        """The end of that."""
        return _tail(self.log)


@contextlib.contextmanager
def starting(
    model: Path,
    store: Path,
    folder: Path,
    arguments: Sequence[str],
    vllm: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Callable[[], Server]]:
    """Start a server on a port that it chooses, and end it; what is given waits until it is ready.

    Args:
        model: the base model's directory.
        store: the adapter store.
        folder: for the log and the cache.
        arguments: further ones of `loraloom serve`.
        vllm: what goes behind the `--`.
        environment: variables besides those of the tests.
    """
    command = [sys.executable, "-m", "loraloom.server.cli", "serve", str(model), "--served-name", BASE]
    command += ["--port", "0", "--adapters", str(store), "--cache", str(folder / "cache")]
    command += ["--jobs", str(folder / "jobs"), *arguments, "--", *vllm]
    log = folder / "server.log"
    with log.open("wb") as output:
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=variables)

    def ready() -> Server:
        server = Server(_where(process, log), store, process, log)
        server.wait_until_ready()
        return server

    try:
        yield ready
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"the server did not end after SIGTERM:\n{_tail(log)}") from None


@contextlib.contextmanager
def serving(
    model: Path,
    store: Path,
    folder: Path,
    arguments: Sequence[str],
    vllm: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """As `starting`, with a server that is ready."""
    with starting(model, store, folder, arguments, vllm, environment) as ready:
        yield ready()


async def tiers(client: httpx.AsyncClient, names: Iterable[str]) -> list[str]:
    """Where the newest version of each adapter is, all asked for at once.

    While the engine has no time to say, nothing is in a "slot": all that it holds is told to be in "cpu".
    """
    replies = await asyncio.gather(*(client.get(f"/v1/adapters/{name}") for name in names))
    return [reply.json()["versions"][-1]["residency"] for reply in replies]


async def eventually(check: Callable[[], Awaitable[bool]], patience: float = 120.0) -> None:
    """Return when a check comes true; fail when it has not within `patience` seconds."""
    async with asyncio.timeout(patience):
        while not await check():
            await asyncio.sleep(0.05)


def chat_body(model: str, prompt: str, **further: object) -> dict[str, object]:
    """A greedy chat request."""
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, **further}


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error in a response, after checking that it has OpenAI's shape."""
    body = json.loads(response.content)
    assert set(body) == {"error"}, body
    error: dict[str, object] = body["error"]
    assert {"message", "type", "param", "code"} <= set(error), error
    return error


def _where(process: subprocess.Popen[bytes], log: Path, patience: float = START) -> str:
    """Where a server listens, as it says itself before it starts its engine."""
    end = time.monotonic() + patience
    while not (said := re.search(r"starting on (http://\S+);", _printed(log))):
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"the server does not say where it listens:\n{_tail(log)}")
        time.sleep(0.1)
    return said[1]


def _printed(log: Path) -> str:
    return log.read_text(errors="replace")


def _tail(log: Path) -> str:
    return _printed(log)[-6000:]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
