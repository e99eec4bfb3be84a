import os
import subprocess
import sys

import psutil
import pytest

from tests.bench.processes import role, standing_still, usage

PROGRAM = """
import socket, subprocess, sys, threading
held = [bytearray(b"x" * 2**20) for _ in range(32)], [open("/dev/null") for _ in range(5)], socket.socket()
held[2].bind(("127.0.0.1", 0)); held[2].listen()
threading.Thread(target=threading.Event().wait, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "print('ready', flush=True); input()"])
child.wait()
"""


def test_a_process_and_its_child() -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = usage(process.pid)
        process.communicate("\n")
    assert found.keys() == {"supervisor", "server"}
    first, child = found.values()
    assert first.pss > child.pss + 16
    assert first.rss >= first.pss > first.own > child.own + 16
    assert first.handles >= child.handles + 6
    assert (first.threads, first.sockets) == (2, 1)
    assert (child.threads, child.sockets) == (1, 0)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["VLLM::EngineCore"], "enginecore"),
        (["python", "-c", "from multiprocessing.resource_tracker import main;main(50)"], "resource_tracker"),
        (["python", "-m", "loraloom.server.child"], "server"),
    ],
)
def test_roles(command: list[str], expected: str) -> None:
    assert role(command, first=False) == expected
    assert role(command, first=True) == "supervisor"


def test_a_process_that_stands_still_goes_on_afterwards() -> None:
    command = [sys.executable, "-c", "print(input())"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        with standing_still([process.pid]):
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
        assert process.communicate("on\n", timeout=60)[0] == "on\n"


def test_one_that_ends_while_it_stands_still_is_no_error() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process, standing_still([process.pid]):
        process.kill()
        process.wait()
