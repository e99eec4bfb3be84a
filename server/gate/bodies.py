"""How much of requests' bodies is in memory at a time: they are whole there until their requests have ended."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from loraloom.server.errors import QueueFull
from loraloom.server.gate.exchange import Message, Receive


@dataclass
class Bodies:
    """A bound for all bodies together, and one for those of each key.

    Attributes:
        most: bytes of all.
        most_of_a_key: bytes of one key's.
    """

    most: int
    most_of_a_key: int
    _held: Counter[str] = field(default_factory=Counter)

    @property
    def held(self) -> int:
        """Bytes that are in memory now."""
        return self._held.total()

    @contextmanager
    def counted(self, key: str, receive: Receive) -> Iterator[Receive]:
        """A `receive` that counts what it gives, for as long as the block lasts.

        It raises `QueueFull` instead of what would be too much.
        """
        size = 0

        async def counting() -> Message:
            nonlocal size
            message = await receive()
            part = len(message.get("body", b""))
            size += part
            self._held[key] += part
            if self._held[key] > self.most_of_a_key or self.held > self.most:
                raise QueueFull("the bodies of the requests that run or wait take too much memory: try again later")
            return message

        try:
            yield counting
        finally:
            self._held[key] -= size
            if not self._held[key]:
                del self._held[key]
