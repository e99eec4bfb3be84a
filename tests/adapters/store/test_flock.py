"""Locks on files: shared, exclusive, and never on a file that is gone."""

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from loraloom.adapters.store.flock import lock_file, unlock

NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
PATIENCE = 10.0
"""Seconds; where the kernel shows no queue, somebody who has had so long stands in it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks/one"


def test_many_share_and_one_excludes(path: Path) -> None:
    shared = [lock_file(path, fcntl.LOCK_SH) for _ in range(2)]
    for each in shared:
        with pytest.raises(BlockingIOError):
            lock_file(path, NOW)
        unlock(each)
    alone = lock_file(path, NOW)
    with pytest.raises(BlockingIOError):
        lock_file(path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    unlock(alone)


def test_a_lock_that_is_given_up_does_not_live_on_in_a_copy(path: Path) -> None:
    lock = lock_file(path, fcntl.LOCK_SH)
    copy = os.dup(lock)  # as a forked child has it
    unlock(lock)
    unlock(lock_file(path, NOW))
    os.close(copy)


def opened(path: Path) -> int:
    """How often this process has the file open; other threads may open and close others meanwhile."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += each.samefile(path)
    return count


def test_a_refused_lock_leaves_nothing_open(path: Path) -> None:
    held = lock_file(path, NOW)
    assert opened(path) == 1
    with pytest.raises(BlockingIOError):
        lock_file(path, NOW)
    assert opened(path) == 1
    unlock(held)


def test_whoever_waited_for_a_file_that_was_removed_locks_the_next(path: Path) -> None:
    held = lock_file(path, fcntl.LOCK_EX)
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(lock_file(path, fcntl.LOCK_SH)), daemon=True)
    waiting.start()
    end = time.monotonic() + PATIENCE
    while not _waits(path) and time.monotonic() < end:
        assert waiting.is_alive()
        time.sleep(0.001)
    path.unlink()
    unlock(held)
    waiting.join()
    assert os.path.samestat(os.fstat(got[0]), path.stat())
    unlock(got[0])


def _waits(path: Path) -> bool:
    """Whether somebody stands in the queue for the lock, as the kernel tells."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{path.stat().st_ino} " in line for line in lines)
