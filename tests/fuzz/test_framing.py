"""No request hides in the body of another: raw bytes to the server that vLLM uses, with the gate before an echo."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
import uvicorn

from loraloom.server.gate.gate import Gate
from tests.fuzz.echo import Echo

HIDDEN = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
BODY = json.dumps({"messages": HIDDEN.decode()}).encode()
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"content-length: %d\r\n" % len(BODY)
LAST = b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
"""After every request, so that the connection ends when all has been answered."""
FRAMINGS = {
    "a length": (LENGTH, BODY, True),
    "chunks": (b"transfer-encoding: chunked\r\n", CHUNKED, True),
    "the same length twice": (LENGTH * 2, BODY, None),
    "two lengths": (b"content-length: 0\r\n" + LENGTH, BODY, False),
    "two lengths, the longer first": (LENGTH + b"content-length: 0\r\n", BODY, False),
    "a length and chunks": (b"content-length: 4\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n" + HIDDEN, False),
    "chunks and a length": (b"transfer-encoding: chunked\r\ncontent-length: 0\r\n", CHUNKED, False),
    "chunks of another spelling": (b"transfer-encoding: xchunked\r\n", HIDDEN, False),
    "chunks that are not the last coding": (b"transfer-encoding: chunked, identity\r\n", HIDDEN, False),
    "chunks after a space": (b"transfer-encoding : chunked\r\ncontent-length: 0\r\n", CHUNKED, False),
    "chunks on a folded line": (b"transfer-encoding:\r\n chunked\r\ncontent-length: 0\r\n", CHUNKED, None),
    "a length of a sign": (b"content-length: +%d\r\n" % len(BODY), BODY, False),
    "a length in hex": (b"content-length: 0x%x\r\n" % len(BODY), BODY, False),
    "a list of lengths": (b"content-length: %d, 0\r\n" % len(BODY), BODY, False),
}
"""Headers, what follows them, and whether the request passes: None where either is sound."""


@contextmanager
def listening(echo: Echo) -> Iterator[int]:
    """The gate behind uvicorn, on a free port."""
    config = uvicorn.Config(echo.served, interface="asgi3", lifespan="off", log_config=None, timeout_keep_alive=1)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("name", FRAMINGS)
def test_no_request_hides_in_another(name: str, gate: Gate) -> None:
    headers, rest, passes = FRAMINGS[name]
    echo = Echo(gate)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + headers + b"\r\n"
    with listening(echo) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + rest + LAST)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    paths = [seen.scope["path"] for seen in echo.seen if seen.scope["path"] != "/ready"]
    assert "/v1/completions" not in paths
    if passes is not None:
        assert paths == (["/v1/chat/completions"] if passes else [])
        assert answer.startswith(b"HTTP/1.1 200" if passes else b"HTTP/1.1 4")
