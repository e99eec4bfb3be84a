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
MOST = 500
"""Connections that are answered at a time; a process has 1,024 file descriptors, as a rule."""
PAUSE = 0.5
"""Seconds without accepting anybody when there is no file descriptor left."""
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
async def answering_unavailable(
    listening: socket.socket, patience: float = PATIENCE, most: int = MOST, pause: float = PAUSE
) -> AsyncIterator[None]:
    """Accept on a non-blocking socket and answer 503 until the block ends.

    The block's end waits until everything that was accepted has its answer. The socket stays open: connections that
    come later wait in its queue for whoever accepts next.

    Args:
        listening: the socket.
        patience: seconds that a connection gets to send its request and to take the answer.
        most: connections that are answered at a time.
        pause: seconds until the next attempt where none can be accepted.
    """
    door = _Door(listening, patience, most, pause)
    door.open()
    try:
        yield
    finally:
        door.close()
        if door.replies:
            await asyncio.wait(door.replies)


class _Door:
    """Accepts connections while it is open, and not while they could not be answered.

    Attributes:
        replies: those that are under way.
    """

    def __init__(self, listening: socket.socket, patience: float, most: int, pause: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._patience = patience
        self._most = most
        self._pause = pause
        self._opening: asyncio.TimerHandle | None = None
        self._closed = False
        self.replies: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Accept whoever comes."""
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Accept nobody any more."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        self._loop.remove_reader(self._listening)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):  # another process was faster, or the client is gone again
            return
        except OSError:  # there is no file descriptor left: whoever waits goes on to wait, and would wake us at once
            self._loop.remove_reader(self._listening)
            self._opening = self._loop.call_later(self._pause, self.open)
            return
        reply = self._loop.create_task(_reply(connection, self._patience))
        self.replies.add(reply)
        reply.add_done_callback(self._replied)
        if len(self.replies) == self._most:
            self._loop.remove_reader(self._listening)

    def _replied(self, reply: asyncio.Task[None]) -> None:
        if len(self.replies) == self._most and not self._closed:
            self.open()
        self.replies.discard(reply)


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
