"""The server that faults happen to, and what there is to make them with."""

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.bench.processes import role, standing_still
from tests.bench.servers import Server
from tests.faults.answers import Question
from tests.faults.clock import Clock
from tests.faults.disk import Disk
from tests.faults.load import Keeper
from tests.faults.recorder import Recorder

GONE = 'loraloom_requests_total{.*ending="disconnected"'
"""Requests whose clients left, or were given up; vLLM's own counter leaves those out."""
RUNNING = "vllm:num_requests_running{"


@dataclass(frozen=True)
class Site:
    """A server under load.

    Attributes:
        server: its supervisor.
        client: to it.
        disk: with its store.
        clock: its processes'; None where they have the machine's.
        questions: what clients ask.
        keeper: publishes versions meanwhile.
        recorder: what clients saw.
        scratch: a folder for what faults need.
        model: the base model's folder.
    """

    server: Server
    client: httpx.AsyncClient
    disk: Disk
    clock: Clock | None
    questions: Sequence[Question]
    keeper: Keeper
    recorder: Recorder
    scratch: Path
    model: Path

    @property
    def models(self) -> set[str]:
        """Everything that clients ask for."""
        return {question.model for question in self.questions}

    @property
    def address(self) -> tuple[str, int]:
        """Where the server listens."""
        parts = urlsplit(self.server.url)
        return str(parts.hostname), int(parts.port or 80)

    def processes(self, wanted: str) -> list[int]:
        """Those of the engine, or the one of the server, by what `role` calls them."""
        below = psutil.Process(self.server.process.pid).children(recursive=True)
        return [each.pid for each in below if role(each.cmdline(), first=False).startswith(wanted)]

    def kill(self, wanted: str) -> None:
        """End a process at once, so that it can do nothing about it."""
        os.kill(min(self.processes(wanted)), signal.SIGKILL)

    @contextmanager
    def stopped(self, wanted: Sequence[str]) -> Iterator[None]:
        """Let processes stand still."""
        with standing_still([pid for each in wanted for pid in self.processes(each)]):
            yield

    async def metric(self, pattern: str) -> float:
        """The sum of the samples of a metric whose lines begin like this."""
        return summed((await self.client.get("/metrics")).text, pattern)


def summed(text: str, pattern: str) -> float:
    """The sum of the samples whose lines begin like a pattern."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(pattern, line))
