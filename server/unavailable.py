"""The answer while there is no server: 503, in the shape of every other error.

On bare sockets, because whatever was accepted must get its answer: asyncio's servers, when they close, drop connections
that they have accepted and not yet read, and those would be requests lost at every start and restart.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from http import HTTPStatus

from loraloom.server.errors import EngineUnavailable
from loraloom.server.gate.statuses import error_body, status_of

PATIENCE = 5.0
_CHUNK = 2**16


def unavailable() -> bytes:
    """The HTTP response to any request, whole; the connection ends with it."""
    error = EngineUnavailable("the server is starting, restarting or stopping: try again in a few seconds")
    status = status_of(error)
    body = json.dumps(error_body(error, status)).encode()
    head = [
        f"HTTP/1.1 {status.http} {HTTPStatus(status.http).phrase}",
        f"retry-after: {status.retry_after}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextlib.asynccontextmanager
async def answering_unavailable(listening: socket.socket, patience: float = PATIENCE) -> AsyncIterator[None]:
    """Accept on a non-blocking socket and answer 503 until the block ends.

    The block's end waits until everything that was accepted has its answer. The socket stays open: connections that
    come later wait in its queue for whoever accepts next.

    Args:
        listening: the socket.
        patience: seconds that a connection gets to send its request and to take the answer.
    """
    loop = asyncio.get_running_loop()
    replies: set[asyncio.Task[None]] = set()

    def accept() -> None:
        try:
            connection, _ = listening.accept()
        except OSError:  # the client is gone again, or another process was faster
            return
        reply = loop.create_task(_reply(connection, patience))
        replies.add(reply)
        reply.add_done_callback(replies.discard)

    loop.add_reader(listening, accept)
    try:
        yield
    finally:
        loop.remove_reader(listening)
        if replies:
            await asyncio.wait(replies)


async def _reply(connection: socket.socket, patience: float) -> None:
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(OSError):  # a timeout is one, too
        connection.setblocking(False)
        async with asyncio.timeout(patience):
            await _read_head(connection)
            await loop.sock_sendall(connection, unavailable())
            connection.shutdown(socket.SHUT_WR)
            # Closed with unread bytes, such as a request's body, the connection is reset and the answer may be lost.
            while await loop.sock_recv(connection, _CHUNK):
                pass


async def _read_head(connection: socket.socket) -> None:
    """Read until the blank line that ends a request's headers, or until the client has no more to send."""
    loop = asyncio.get_running_loop()
    tail = b""
    while b"\r\n\r\n" not in tail and (received := await loop.sock_recv(connection, _CHUNK)):
        tail = tail[-3:] + received
