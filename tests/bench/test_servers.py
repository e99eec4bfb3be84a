import sys
import urllib.request
from pathlib import Path

import pytest

from tests.bench.errors import InvalidRun
from tests.bench.servers import Start, free_port, started

ANSWERING = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(sorted(os.environ)).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def start(program: str, **environment: str) -> Start:
    port = free_port()
    return Start("tried", [sys.executable, "-c", program, str(port)], port, environment)


def test_a_server_gets_no_settings_but_those_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALOOM_MODEL", "another")
    monkeypatch.setenv("VLLM_PORT", "1")
    with started(start(ANSWERING, VLLM_PLUGINS=""), tmp_path) as server:
        server.wait_until_ready()
        with urllib.request.urlopen(server.url, timeout=60) as answer:
            variables = answer.read().decode()
    assert "VLLM_PLUGINS" in variables
    assert "LORALOOM_MODEL" not in variables
    assert "VLLM_PORT" not in variables
    assert server.process.poll() is not None


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        started(start("raise SystemExit('no such model')"), tmp_path) as server,
        pytest.raises(InvalidRun, match="no such model"),
    ):
        server.wait_until_ready()
