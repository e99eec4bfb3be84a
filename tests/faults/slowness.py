"""A filesystem that takes its time: every open and every read of it waits (Linux, fanotify(7)).

The kernel asks this process for permission, and this process lets it wait. That is done for whoever looks, on the
real files, and needs no other filesystem. What only asks for a file's size or time does not wait.
"""

import ctypes
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.errors import CannotInject

_CONTENT_CLOEXEC_UNLIMITED = 0x04 | 0x01 | 0x10
_ADD_MOUNT = 0x01 | 0x10
_OPEN_READ_FOLDERS = 0x10000 | 0x20000 | 0x40000000
_HERE = -100
_EVENT = struct.Struct("IBBHQii")
_ALLOW = 1
_MUCH = 1 << 16
_TICK = 0.01


@contextmanager
def slowed(mount: Path, seconds: float) -> Iterator[None]:
    """Let every open and every read on a mounted filesystem wait; what still waits at the end goes on at once.

    Raises:
        CannotInject: the kernel does not offer it, or not to this user.
    """
    group, stopped = _group(mount), threading.Event()
    doorman = threading.Thread(target=_keep_waiting, args=(group, seconds, stopped), daemon=True)
    doorman.start()
    try:
        yield
    finally:
        stopped.set()
        doorman.join()
        os.close(group)  # the kernel allows whatever has not been read from it


def _group(mount: Path) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
    group: int = libc.fanotify_init(_CONTENT_CLOEXEC_UNLIMITED, os.O_RDONLY | os.O_CLOEXEC)
    if group < 0 or libc.fanotify_mark(group, _ADD_MOUNT, _OPEN_READ_FOLDERS, _HERE, bytes(mount)):
        raise CannotInject(f"fanotify fails here: {os.strerror(ctypes.get_errno())}; it takes root")
    os.set_blocking(group, False)
    return group


def _keep_waiting(group: int, seconds: float, stopped: threading.Event) -> None:
    waiting: deque[tuple[float, int]] = deque()
    while not stopped.is_set():
        select.select([group], [], [], _TICK)
        with suppress(BlockingIOError):
            events = _EVENT.iter_unpack(os.read(group, _MUCH))
            waiting.extend((time.monotonic() + seconds, event[5]) for event in events)
        while waiting and waiting[0][0] <= time.monotonic():
            _allow(group, waiting.popleft()[1])
    for _, file in waiting:
        _allow(group, file)


def _allow(group: int, file: int) -> None:
    """Let one go on; the kernel has opened `file` for us to see what it is."""
    with suppress(OSError):  # whoever asked may have been killed meanwhile
        os.write(group, struct.pack("iI", file, _ALLOW))
    os.close(file)
