"""The folders in which files are made before they are published."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loraloom.adapters.store.disk import Disk, reporting

ABANDONED_S = 24 * 3600.0
"""The age from which a stage is that of a killed writer."""


class Stage:
    """A folder of one's own; see `staged`."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk

    def subfolder(self, name: str) -> Path:
        folder = self.folder / name
        self._disk.mkdir(folder)
        return folder

    def copy(self, source: Path, name: str) -> Path:
        """A copy of a regular file; a link is refused with `InvalidAdapter`."""
        path = self.folder / name
        self._disk.copy(source, path)
        return path

    def seal(self, name: str) -> Path:
        """Make a file durable, and keep it from being changed by mistake."""
        path = self.folder / name
        self._disk.chmod(path, 0o444)
        self._disk.fsync(path)
        return path

    def remove(self) -> None:
        remove_tree(self.folder, self._disk)


@contextmanager
def staged(parent: Path, disk: Disk, place: str) -> Iterator[Stage]:
    """A new folder in `parent`, removed at the end. What a killed writer leaves there is garbage that nothing looks at.

    Raises:
        StoreError: for every failed system call in the block; it says that `place` failed.
    """
    stage = Stage(parent / uuid.uuid4().hex, disk)
    with reporting(place):
        disk.mkdir(parent)
        disk.mkdir(stage.folder)
        try:
            yield stage
        finally:
            # What has been published stays published, even if what it was made from cannot be removed.
            with suppress(OSError):
                stage.remove()


def is_abandoned(stage: Path) -> bool:
    """Whether nobody has made anything in it for so long that its writer is dead."""
    with suppress(FileNotFoundError):
        return stage.stat().st_mtime < time.time() - ABANDONED_S
    return False


def remove_tree(path: Path, disk: Disk) -> None:
    """Remove a file, or a folder with all that is in it; also when somebody else is at it."""
    with suppress(FileNotFoundError):
        if not path.is_dir() or path.is_symlink():
            disk.unlink(path)
            return
        for entry in list(os.scandir(path)):
            remove_tree(Path(entry.path), disk)
        disk.rmdir(path)


def size_of(path: Path) -> int:
    """Bytes in a file, or in all files below a folder; 0 where there is none."""
    if path.is_dir():
        return sum(size_of(child) for child in path.iterdir())
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
