import asyncio

import pytest

from tests.faults.rude import half_a_body

REPLY = b'{"error": {"message": "too slow", "type": "invalid_request_error", "param": null, "code": "body_too_slow"}}'


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 408 Request Timeout\r\n\r\n" + REPLY, "408 body_too_slow"),
        (b"", "broken off"),
        (b"HTT", "broken off"),
    ],
)
async def test_half_a_request_is_sent_and_its_end_told(answer: bytes, told: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split()[0])
        await reader.readexactly(length - 500)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()[:2]
        assert await half_a_body(address, patience=60) == told
