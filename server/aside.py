"""How a process that works beside the server gives way to it, and does not outlive it."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def threads() -> int:
    """How many threads such a process may compute on: a quarter of the processors."""
    return max(1, (os.cpu_count() or 1) // 4)


def stand_aside(nice: int, last: signal.Signals = signal.SIGKILL) -> None:
    """Let this process leave processors and memory to the engine, and end with the thread that started it.

    Args:
        nice: how far it steps back, up to 19.
        last: the signal that it gets at the end.
    """
    os.nice(nice)
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, last)
