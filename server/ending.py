"""The end of a server whose engine has died: what runs is answered, what is known is written down, and no more.

vLLM's own server would wait for requests that wait for the engine. Here nothing is waited for without an end, since
the supervisor starts another server only when this one is gone.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Protocol

from loraloom.server import draining
from loraloom.server.gate.running import Running

log = logging.getLogger("vllm.loraloom.ending")

WATCH = 0.25
"""Seconds between two looks at the engine's health."""
LAST_WORDS, FLUSH = 5.0, 0.5
"""Seconds that interrupted requests get to be answered at most, and their answers to leave."""
WRITING = 7.0
"""Seconds that writing down gets at most: the disk may hang. The ledger needs five to say what is lost then."""


class Mortal(Protocol):
    """An engine, as far as this is concerned."""

    @property
    def dead(self) -> bool:
        """Whether it has stopped for good."""


async def end_with(
    engine: Mortal,
    running: Running,
    stop_accepting: Callable[[], None],
    close: Callable[[], None],
    leave: Callable[[int], object] = os._exit,
) -> None:
    """When the engine dies, answer what runs and end this process, so that the supervisor can start another.

    Args:
        engine: to watch.
        running: the requests to answer with 503.
        stop_accepting: leaves new connections to the supervisor; one that is let in now might end without an answer.
        close: writes down what waits to be; it may block.
        leave: ends the process with a status, and does nothing else.
    """
    while not engine.dead:
        await asyncio.sleep(WATCH)
    stop_accepting()
    interrupted = running.interrupt()
    wanted = draining.BEGUN.is_set() and not interrupted
    level = logging.DEBUG if wanted else logging.ERROR
    log.log(level, "the engine has stopped; %d requests are answered with 503", interrupted)
    await _until(lambda: not running.count, LAST_WORDS)
    await asyncio.sleep(FLUSH)
    writing = threading.Thread(target=close, name="loraloom-last-words", daemon=True)
    writing.start()
    await _until(lambda: not writing.is_alive(), WRITING)
    leave(1)


async def _until(done: Callable[[], bool], patience: float) -> None:
    """Wait for something, but not for ever."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while not done() and loop.time() < end:
        await asyncio.sleep(0.02)
