"""The server's process: it belongs to a supervisor. `test_supervisor.py` runs its `follow` for real."""

import os
import socket
import subprocess
import sys

import pytest

from loraloom.server.settings import HANDOFF, Handoff, Settings


def start(environment: dict[str, str], **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "loraloom.server.child"]
    kept = {name: value for name, value in os.environ.items() if name != HANDOFF}
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False, **options)


def test_without_a_supervisor_it_does_not_start() -> None:
    run = start({})
    assert (run.returncode, run.stderr) == (1, "this module is started by `loraloom serve MODEL`\n")


@pytest.mark.parametrize("unread", [b"", b"r"])
def test_a_supervisor_that_ends_while_the_engine_is_imported_ends_it(unread: bytes) -> None:
    """Also if it ends before it has read that the server is ready: its channel is then reset, and has no end."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listening:
        handoff = Handoff(Settings(model="m"), listening.fileno(), theirs.fileno())
        theirs.send(unread)
        ours.close()
        run = start(handoff.environment(), pass_fds=(listening.fileno(), theirs.fileno()), timeout=60)
    assert run.returncode == -15
