"""kill -9 of `loraloom adapters add`: what was there before is whole, and adding again succeeds."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.adapters.small_adapters import small_adapter
from tests.server.cli.conftest import Loraloom

PATIENCE = 60.0
"""Seconds after which a moment that does not come fails the test."""


@contextmanager
def full_pipe() -> Iterator[int]:
    """The end of a pipe that takes no more: whoever prints to it never gets past that."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ))):
                pass
        os.set_blocking(writing, True)
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


def wait_for(process: subprocess.Popen[bytes], folder: Path, pattern: str, seen: set[Path]) -> None:
    """Return as soon as there is such a file that was not seen before."""
    end = time.monotonic() + PATIENCE
    while not set(folder.glob(pattern)) - seen:
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end, f"there was never any {pattern}"
        time.sleep(0.001)


@pytest.mark.parametrize(
    "moment",
    [
        "stage/*/original/adapter_config.json",
        "stage/*/normal/*",
        "originals/*/*",
        "blobs/*/*",
        "names/sql/tags/latest/000002.json",
    ],
)
def test_killed(loraloom: Loraloom, tmp_path: Path, base: Path, moment: str) -> None:
    store = tmp_path / "store"
    where = ("--name", "sql", "--base", str(base), "--adapters", str(store))
    assert loraloom("adapters", "add", small_adapter(tmp_path / "before"), *where).status == 0
    words = ("adapters", "add", str(small_adapter(tmp_path / "given", seed=1)), *where)
    seen = set(store.glob(moment))
    with full_pipe() as full:
        process = subprocess.Popen([sys.executable, "-m", "loraloom.server.cli", *words], stdout=full)
        wait_for(process, store, moment, seen)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    verified = loraloom("adapters", "verify", "--adapters", store)
    assert (verified.status, verified.out.splitlines()[-1][:9]) == (0, "0 damaged")
    again = loraloom(*words)
    assert (again.status, "sql@2" in again.out) == (0, True)
    assert loraloom("adapters", "verify", "--adapters", store).status == 0
