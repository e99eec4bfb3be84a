"""Waiting with an end, for what hardly ever has to be waited for."""

import asyncio
from collections.abc import Awaitable, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """What an awaitable gives, if that takes no longer than some seconds.

    It is begun before there is a timer: that costs more than all the rest where nothing has to be waited for, as with
    each part of an answer that the connection takes at once.

    Raises:
        TimeoutError: it takes longer; it has been cancelled.
    """
    steps = awaitable.__await__()
    try:
        awaited = next(steps)
    except StopIteration as end:
        return cast(T, end.value)
    async with asyncio.timeout(seconds):
        return cast(T, await _rest(steps, awaited))


@coroutine
def _rest(steps: Generator[Any, Any, T], awaited: object) -> Generator[Any, Any, T]:
    """What is left of an awaitable that has begun, and awaits something already."""
    while True:
        try:
            answer = yield awaited
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            step = partial(steps.throw, error)
        else:
            step = partial(steps.send, answer)
        try:
            awaited = step()
        except StopIteration as end:
            return cast(T, end.value)
        finally:
            del step  # which may hold an error, whose traceback holds this frame
