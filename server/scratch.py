"""A folder that belongs to one process, and that whoever comes after a killed one removes."""

import fcntl
import shutil
import uuid
import weakref
from contextlib import suppress
from pathlib import Path

from loraloom.adapters.store.flock import lock_file, unlock


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
        held = lock_file(_lock_of(self.folder), fcntl.LOCK_EX)
        self.folder.mkdir()
        self.close = weakref.finalize(self, _remove, self.folder, held)
        """Remove the folder now."""

    def subfolder(self, name: str) -> Path:
        """A new folder in it."""
        folder = self.folder / name
        folder.mkdir()
        return folder


def _remove(folder: Path, held: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)
    unlock(held)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_abandoned(lock: Path) -> None:
    with suppress(BlockingIOError):
        _remove(lock.with_suffix(""), lock_file(lock, fcntl.LOCK_EX | fcntl.LOCK_NB))
