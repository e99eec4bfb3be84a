"""The folders in which files are made before they are published."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loraloom.adapters.store.disk import Disk, reporting


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
        self._remove(self.folder)

    def _remove(self, folder: Path) -> None:
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                self._remove(Path(entry.path))
            else:
                self._disk.unlink(Path(entry.path))
        self._disk.rmdir(folder)


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
