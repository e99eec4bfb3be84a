"""The answer while there is no server: given to whoever was accepted, and lost by nobody."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import openai
import pytest

from loraloom.server.supervisor import address, listen
from loraloom.server.unavailable import answering_unavailable

PATIENCE = 30.0
"""Seconds after which a test that waits for something fails."""
REQUEST = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
answering = partial(answering_unavailable, patience=PATIENCE)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0) as bound:
        yield bound


async def connect(listening: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*listening.getsockname())


async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Everything until the other side closes."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_an_openai_client_understands_it(listening: socket.socket) -> None:
    url = f"{address(listening)}/v1"
    async with answering(listening), openai.AsyncOpenAI(base_url=url, api_key="-", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="sql", messages=[{"role": "user", "content": "hello"}])
    error = caught.value
    assert (error.status_code, error.code, error.type) == (503, "engine_unavailable", "server_error")
    assert int(error.response.headers["retry-after"]) > 0
    assert error.response.headers["connection"] == "close"
    assert "try again in a few seconds" in error.message


async def test_any_method_and_path(listening: socket.socket) -> None:
    async with answering(listening), httpx.AsyncClient(base_url=address(listening), timeout=PATIENCE) as client:
        for method, path in (("GET", "/ready"), ("PUT", "/v1/adapters/sql/tags/stable"), ("DELETE", "/")):
            reply = await client.request(method, path)
            assert (reply.status_code, set(reply.json())) == (503, {"error"})


async def test_a_body_is_taken_before_the_connection_is_closed(listening: socket.socket) -> None:
    """Else the client, still sending, would see a reset instead of the answer."""
    async with answering(listening), httpx.AsyncClient(base_url=address(listening), timeout=PATIENCE) as client:
        reply = await client.post("/v1/adapters", content=bytes(32 * 2**20))
    assert reply.status_code == 503


async def test_a_request_in_pieces(listening: socket.socket) -> None:
    async with answering(listening):
        reader, writer = await connect(listening)
        for number in range(len(REQUEST)):
            writer.write(REQUEST[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await rest(reader, writer)).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


async def test_whoever_waits_in_the_queue_is_answered(listening: socket.socket) -> None:
    reader, writer = await connect(listening)
    writer.write(REQUEST)
    async with answering(listening):
        assert b" 503 " in await rest(reader, writer)


async def test_whoever_was_accepted_is_answered_after_the_end(listening: socket.socket) -> None:
    async with asyncio.timeout(PATIENCE):
        async with answering(listening):
            silent = await connect(listening)
            later = await connect(listening)
            later[1].write(REQUEST)
            assert b" 503 " in await rest(*later)  # accepted in order: so the silent one was, too
            asyncio.get_running_loop().call_soon(silent[1].write, REQUEST)
            answer = asyncio.ensure_future(rest(*silent))
        assert asyncio.all_tasks() - {answer} == {asyncio.current_task()}
        assert b" 503 " in await answer


async def test_after_the_end_the_queue_is_left_to_whoever_accepts_next(listening: socket.socket) -> None:
    async with answering(listening):
        pass
    reader, writer = await connect(listening)
    writer.write(b"hello")
    accepted, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listening), PATIENCE)
    with accepted:
        accepted.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(accepted, 100) == b"hello"
        accepted.send(b"bye")
    assert await rest(reader, writer) == b"bye"


async def test_clients_that_go_away_disturb_nobody(listening: socket.socket) -> None:
    async with answering(listening), httpx.AsyncClient(base_url=address(listening), timeout=PATIENCE) as client:
        for sent in (b"", REQUEST[:9], REQUEST):
            _, writer = await connect(listening)
            writer.write(sent)
            writer.transport.abort()
        assert (await client.get("/")).status_code == 503


class Watched:
    """A listening socket whose process has no file descriptor left for the first connections.

    Attributes:
        left: how many cannot be accepted.
        tries: how many were to be.
    """

    def __init__(self, listening: socket.socket, left: int = 0) -> None:
        self._listening = listening
        self.left = left
        self.tries = 0

    def fileno(self) -> int:
        return self._listening.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        if self.tries <= self.left:
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listening.accept()


async def turns(number: int = 20) -> None:
    """Let everything run that can, some times."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_process_without_file_descriptors_does_not_try_again_and_again(listening: socket.socket) -> None:
    """The kernel goes on to say that somebody waits."""
    watched: Any = Watched(listening, left=10**6)
    async with answering(watched, pause=3600):
        _, writer = await connect(listening)
        await until(lambda: watched.tries > 0)
        await turns()
        assert watched.tries == 1
        writer.close()


async def test_when_there_are_file_descriptors_again_whoever_waits_is_answered(listening: socket.socket) -> None:
    watched: Any = Watched(listening, left=3)
    async with answering(watched, pause=0.001):
        reader, writer = await connect(listening)
        writer.write(REQUEST)
        assert b" 503 " in await rest(reader, writer)


async def test_so_many_are_answered_at_a_time_and_the_others_wait_in_the_queue(listening: socket.socket) -> None:
    watched: Any = Watched(listening)
    async with answering(watched, most=2):
        silent, other, last = [await connect(listening) for _ in range(3)]
        await until(lambda: watched.tries > 1)
        await turns()
        assert watched.tries == 2
        for each in (silent, other, last):
            each[1].write(REQUEST)
            assert b" 503 " in await rest(*each)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"])
async def test_a_silent_client_is_not_waited_for_without_end(listening: socket.socket, sent: bytes) -> None:
    reader, writer = await connect(listening)
    writer.write(sent)  # before anybody accepts: what comes when the patience has ended would meet a reset
    async with answering(listening, patience=0.01):
        assert await rest(reader, writer) == b""
