"""A folder that belongs to one process, and that whoever comes after a killed one removes."""

import fcntl
import os
import shutil
import uuid
import weakref
from contextlib import suppress
from pathlib import Path


class Scratch:
    """A new folder in `parent`; those that dead processes have left there are removed first.

    A process holds a lock beside each of its folders, which the kernel takes back when it dies. The folder goes with
    this object, at the latest when the process ends.

    Attributes:
        folder: the folder.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        for lock in parent.glob("*.lock"):
            _remove_abandoned(lock)
        self.folder = parent / uuid.uuid4().hex
        held = os.open(_lock_of(self.folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(held, fcntl.LOCK_EX)
        self.folder.mkdir()
        self.close = weakref.finalize(self, _remove, self.folder, held)
        """Remove the folder now."""


def _remove(folder: Path, held: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)
    os.close(held)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_abandoned(lock: Path) -> None:
    with suppress(FileNotFoundError, BlockingIOError):
        held = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(held)
