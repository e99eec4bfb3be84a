"""A server without a model that keeps to what the supervisor asks of one.

    python -m tests.server.fake_server SOCKET SECONDS

It connects to a test at the UNIX socket, tells who it is, and does as the test says, a word a line: "ready" (announce
it and serve), "exit 3" (end with this status). On SIGTERM it stops to accept, says "terminated", and waits for "exit".
It may outlive its supervisor by SECONDS.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loraloom.server.child import follow
from loraloom.server.settings import handed_over


class Handler(BaseHTTPRequestHandler):
    """Answers with the server's process identifier."""

    def do_GET(self) -> None:
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Serves on a socket that listens already."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening


def main() -> None:
    handoff = handed_over()
    assert handoff is not None
    threading.Thread(target=follow, args=(handoff.control, float(sys.argv[2])), daemon=True).start()
    server = Server(socket.socket(fileno=handoff.socket))
    test = socket.socket(socket.AF_UNIX)
    test.connect(sys.argv[1])

    def terminated(*_: object) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()
        test.sendall(b"terminated\n")

    signal.signal(signal.SIGTERM, terminated)
    helper = subprocess.Popen(["sleep", "1000"])
    about = {"pid": os.getpid(), "helper": helper.pid, "model": handoff.settings.model, "given": os.environ["GIVEN"]}
    test.sendall(json.dumps(about).encode() + b"\n")
    for line in test.makefile():
        word, *arguments = line.split()
        if word == "exit":
            os._exit(int(arguments[0]))
        os.write(handoff.control, b"r")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()


if __name__ == "__main__":
    main()
