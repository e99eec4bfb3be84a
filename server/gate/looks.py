"""Looks into a store that may hang, as a network filesystem does whose server is away."""

import asyncio
import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from loraloom.adapters.errors import StoreError

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Look:
    """One look, from when it is asked for to when it has come to an end.

    Attributes:
        call: takes it.
        answer: what somebody waits for.
        due: when it is given up, in the time of the event loop.
        begun, over: whether a thread has begun it, and has come to its end.
    """

    call: Callable[[], Any]
    answer: asyncio.Future[Any]
    due: float
    begun: bool = False
    over: bool = False


_Jobs: TypeAlias = SimpleQueue[_Look | None]


class Looks:
    """Takes each look in a thread of its own pool, and waits for it for a while.

    Nothing can end a system call that hangs: its thread is lost until the call returns. So the event loop never makes
    one itself, no other work shares these threads, and when all of them hang, the next look is refused at once.

    Every request takes a look, and asyncio's own way to a thread and back costs more than the look itself. Here it is
    one queue, one call back, and one timer for all: as all have the same patience, what was begun first is due first.
    """

    def __init__(self, place: str, patience: float = 5.0, threads: int = 8) -> None:
        """
        Args:
            place: what is looked at, such as "the store /srv/adapters".
            patience: seconds to wait for one look.
            threads: looks at a time.
        """
        self._place = place
        self._patience = patience
        self._most = threads
        self._jobs: _Jobs = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open: OrderedDict[_Look, None] = OrderedDict()  # in the order in which they are due
        self._hanging: set[_Look] = set()
        self._watched: asyncio.AbstractEventLoop | None = None
        weakref.finalize(self, _dismiss, self._jobs, self._threads)

    async def take(self, look: Callable[..., T], *arguments: object) -> T:
        """What `look` returns or raises.

        Raises:
            StoreError: it did not come to an end.
        """
        if len(self._hanging) >= self._most:
            raise self._no_answer()
        loop = asyncio.get_running_loop()
        one = _Look(partial(look, *arguments), loop.create_future(), loop.time() + self._patience)
        self._open[one] = None
        self._see_that_somebody_works()
        self._see_that_somebody_watches(loop)
        self._jobs.put(one)
        try:
            found: T = await one.answer
            return found
        finally:
            if not one.answer.cancelled():  # else it may still hang, which the watch has to know
                self._open.pop(one, None)

    def _see_that_somebody_works(self) -> None:
        if len(self._threads) < min(self._most, len(self._open) + len(self._hanging)):
            thread = threading.Thread(
                target=_work, args=(self._jobs, self._hanging), name="loraloom-looks", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _see_that_somebody_watches(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watched is not loop:
            self._watched = loop
            loop.call_later(self._patience, self._watch, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up what is due, and come again for what is next."""
        for one in list(self._open):
            if one.due > loop.time():
                loop.call_at(one.due, self._watch, loop)
                return
            self._give_up(one)
        self._watched = None

    def _give_up(self, one: _Look) -> None:
        del self._open[one]
        if not one.answer.done():
            one.answer.set_exception(self._no_answer())
        if one.begun:  # read after that: a thread that begins only now sees that nobody waits
            self._hanging.add(one)
        if one.over:  # just now: its thread may have looked among those that hang before it was there
            self._hanging.discard(one)

    def _no_answer(self) -> StoreError:
        return StoreError(
            f"{self._place} did not answer within {self._patience:g} s: see whether its filesystem is there, and try "
            "again"
        )


def _work(jobs: _Jobs, hanging: set[_Look]) -> None:
    """Take one look after the other, but none that nobody waits for."""
    while (one := jobs.get()) is not None:
        one.begun = True  # before the question whether somebody waits: who gives it up in between counts it as hanging
        if not one.answer.done():
            _take(one)
        one.over = True
        hanging.discard(one)
        del one


def _take(one: _Look) -> None:
    found, error = None, None
    try:
        found = one.call()
    except BaseException as raised:
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop may be closed by now, and nobody waits
        one.answer.get_loop().call_soon_threadsafe(_settle, one.answer, found, error)


def _settle(answer: asyncio.Future[Any], found: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(found)
    else:
        answer.set_exception(error)


def _dismiss(jobs: _Jobs, threads: list[threading.Thread]) -> None:
    """Let the threads end, those aside that hang."""
    for _ in threads:
        jobs.put(None)
