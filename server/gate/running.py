"""The requests that run now, so that they can be answered when their engine dies.

A request that waits for a dead engine may wait for ever: vLLM leaves calls such as the loading of an adapter
unanswered, and its server then cannot shut down either.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Running:
    """The tasks of the requests that have passed the gate's door."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._tasks)

    @contextmanager
    def listed(self) -> Iterator[None]:
        """List the current task for the length of a block."""
        task = asyncio.current_task()
        assert task is not None, "requests run in tasks"
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def interrupt(self) -> int:
        """Cancel every listed task; each turns that into an answer.

        Returns:
            How many there were.
        """
        for task in self._tasks:
            task.cancel("the engine died")
        return len(self._tasks)
