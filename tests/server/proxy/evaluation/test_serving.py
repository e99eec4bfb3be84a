"""Servers as child processes."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from loraloom.server.proxy.evaluation import serving as module
from loraloom.server.proxy.evaluation.errors import EvaluationFailed
from loraloom.server.proxy.evaluation.serving import Start, free_port, serving

ROOT = Path(__file__).parents[4]
IGNORES_SIGTERM = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def start_of(folder: Path, command: Sequence[str], port: int, patience: float = 120) -> Start:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return Start(command, port, folder, folder / "server.log", environment, patience)


def fake(folder: Path) -> Start:
    port = free_port()
    program = "tests.server.proxy.evaluation.fake_chat"
    return start_of(folder, [sys.executable, "-m", program, "model", "--port", str(port), "--"], port)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_inside_and_is_gone_behind(tmp_path: Path) -> None:
    start = fake(tmp_path)
    with serving(start) as url, urllib.request.urlopen(f"{url}/ready") as reply:
        assert reply.status == 200
        told = json.loads(start.log.read_text().splitlines()[0])
        assert is_running(told["pid"])
    assert not is_running(told["pid"])


def test_ctrl_c_ends_it_too(tmp_path: Path) -> None:
    start = fake(tmp_path)
    with pytest.raises(KeyboardInterrupt), serving(start):
        raise KeyboardInterrupt
    assert not is_running(json.loads(start.log.read_text().splitlines()[0])["pid"])


def test_one_that_ends_by_itself_tells_why(tmp_path: Path) -> None:
    start = start_of(tmp_path, [sys.executable, "-c", "import sys; sys.exit('out of memory')"], free_port())
    with (
        pytest.raises(EvaluationFailed, match=r"(?s)ended with status 1. .*server.log, ends with:\nout of memory"),
        serving(start),
    ):
        pass


def test_one_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    begin = module._started
    monkeypatch.setattr(module, "_started", lambda start: started.append(begin(start)) or started[0])
    start = start_of(tmp_path, ["sleep", "1000"], free_port(), patience=0.1)
    with pytest.raises(EvaluationFailed, match=r"not ready within 0\.1 s"), serving(start):
        pass
    assert not is_running(started[0].pid)


def test_one_that_does_not_mind_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraloom.server.proxy.evaluation.serving.GRACE", 0.1)
    (tmp_path / "ready").touch()
    port = free_port()
    start = start_of(tmp_path, [sys.executable, "-c", IGNORES_SIGTERM, str(port)], port)
    with serving(start):
        pid = int(start.log.read_text().splitlines()[0])
        assert is_running(pid)
    assert not is_running(pid)
