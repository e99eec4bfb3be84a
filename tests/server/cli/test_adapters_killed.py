"""kill -9 of `loraloom adapters add`: what was there before is whole, and adding again succeeds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.small_adapters import small_adapter
from tests.server.cli.conftest import Loraloom

STOPPING = """
import os, signal, sys
from pathlib import Path
from loraloom.adapters.store.disk import Disk
from loraloom.server.cli import main

store, moment, *words = sys.argv[1:]
there = lambda: set(Path(store).glob(moment))
before = there()

def stopping(call):
    def called(*arguments):
        result = call(*arguments)
        if there() - before:
            os.kill(os.getpid(), signal.SIGSTOP)
        return result
    return called

for name, call in list(vars(Disk).items()):
    if callable(call):
        setattr(Disk, name, stopping(call))
signal.alarm(300)  # rather than to hang
sys.exit(main(words))
"""
"""A command that stops itself as soon as there is such a file that was not there before."""


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
    process = subprocess.Popen([sys.executable, "-c", STOPPING, str(store), moment, *words])
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1]), f"there was never any {moment}"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    verified = loraloom("adapters", "verify", "--adapters", store)
    assert (verified.status, verified.out.splitlines()[-1][:9]) == (0, "0 damaged")
    again = loraloom(*words)
    assert (again.status, "sql@2" in again.out) == (0, True)
    assert loraloom("adapters", "verify", "--adapters", store).status == 0
