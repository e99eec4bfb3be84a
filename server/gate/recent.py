"""What was found a moment ago: a busy server is asked for the same adapters hundreds of times a second."""

import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

LIFETIME = 0.05
"""Seconds for which what was found counts, unless this process changes the store: others' changes count that late."""
MOST = 1024
"""Answers that are kept."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An answer.

    Attributes:
        until: when it counts no more.
        changes: how often this process had changed the store before it was looked for.
    """

    answer: Any
    until: float
    changes: int


class Recent:
    """Looks for things, or gives what a look that began a moment ago found. Failures are not kept."""

    def __init__(
        self, changes: Callable[[], int], clock: Callable[[], float] = time.monotonic, lifetime: float = LIFETIME
    ) -> None:
        """
        Args:
            changes: another number after each change by this process.
            clock: seconds of a clock that never goes back.
            lifetime: seconds for which an answer counts.
        """
        self._changes = changes
        self._clock = clock
        self._lifetime = lifetime
        self._found: dict[Hashable, _Found] = {}

    async def find(self, what: Hashable, look: Callable[[], Awaitable[T]]) -> T:
        """What `look` gives.

        Args:
            what: all on which that depends, but for time.
            look: finds it, and may raise.
        """
        now, changes = self._clock(), self._changes()
        known = self._found.get(what)
        if known is not None and now < known.until and changes == known.changes:
            answer: T = known.answer
            return answer
        answer = await look()
        if len(self._found) >= MOST:
            self._found.clear()
        self._found[what] = _Found(answer, now + self._lifetime, changes)
        return answer
