"""Clients that leave in the middle of an answer, do not read it, or do not finish their request."""

import asyncio
import json
import re
import socket
from collections.abc import Sequence
from contextlib import closing

import httpx

from tests.faults.answers import CHAT, refusal

_SMALL = 536
"""Bytes of a segment, and about those of the window: what is sent beyond them waits in the server."""
_WORDS = 200
"""Likely words that are told with each token, so that an answer is long."""
ENDLESS = {"max_tokens": 900, "ignore_eos": True, "stream": True}


def endless(model: str, prompt: str, **further: object) -> dict[str, object]:
    """A request whose answer takes much longer than anybody waits here."""
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **ENDLESS, **further}


async def leave(client: httpx.AsyncClient, body: dict[str, object], gone: asyncio.Event) -> None:
    """Read an answer until the event, then hang up."""
    async with client.stream("POST", CHAT, json=body) as reply:
        async for _ in reply.aiter_lines():
            if gone.is_set():
                return


def unread(address: tuple[str, int], body: dict[str, object]) -> socket.socket:
    """Ask, and never read the answer; the caller closes the connection."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL)
    connection.connect(address)
    connection.sendall(_request(json.dumps({**body, "logprobs": True, "top_logprobs": _WORDS}).encode()))
    return connection


async def half_a_body(address: tuple[str, int], patience: float) -> str:
    """Send half of a request, and tell how it ends."""
    whole = _request(b'{"model": "' + b"a" * 1000 + b'"}')
    loop = asyncio.get_running_loop()
    with closing(socket.create_connection(address)) as connection:
        connection.sendall(whole[:-500])
        connection.setblocking(False)
        async with asyncio.timeout(patience):
            received = b""
            while part := await loop.sock_recv(connection, 1 << 16):
                received += part
                if b"\r\n\r\n{" in received and received.rstrip().endswith(b"}"):
                    break
    head, _, content = received.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
    return refusal(int(status[1]), content) if status else "broken off"


def _request(body: bytes) -> bytes:
    head = [f"POST {CHAT} HTTP/1.1", "host: localhost", "content-type: application/json"]
    return "\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body


def closed(connections: Sequence[socket.socket]) -> None:
    for connection in connections:
        connection.close()
