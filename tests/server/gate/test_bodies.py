"""How much of requests' bodies is in memory at a time."""

import pytest

from loraloom.server.errors import QueueFull
from loraloom.server.gate.bodies import Bodies
from loraloom.server.gate.exchange import Message, Receive


def parts(*sizes: int) -> Receive:
    coming = iter(sizes)

    async def receive() -> Message:
        size = next(coming, None)
        return {"type": "http.disconnect"} if size is None else {"type": "http.request", "body": b"x" * size}

    return receive


async def test_what_is_in_memory_is_counted_until_the_request_has_ended() -> None:
    bodies = Bodies(100, 50)
    with bodies.counted("a", parts(20, 10)) as first, bodies.counted("a", parts(15)) as second:
        for receive in (first, first, second, second):
            await receive()
        assert bodies.held == 45
    assert bodies.held == 0
    assert not bodies._held


async def test_one_key_cannot_take_it_all() -> None:
    bodies = Bodies(100, 50)
    with bodies.counted("a", parts(40, 20)) as flood, bodies.counted("b", parts(40)) as other:
        await flood()
        with pytest.raises(QueueFull, match="memory"):
            await flood()
        await other()
    assert bodies.held == 0


async def test_all_together_are_bounded() -> None:
    bodies = Bodies(60, 50)
    with bodies.counted("a", parts(40)) as first, bodies.counted("b", parts(30)) as second:
        await first()
        with pytest.raises(QueueFull):
            await second()
