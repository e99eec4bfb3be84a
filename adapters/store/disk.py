"""The filesystem calls of the local store, and what their failures mean."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loraloom.adapters.errors import AdapterError, StoreError
from loraloom.adapters.manifest import open_regular

_ADVICE = {
    errno.ENOSPC: "is full: free some space and try again",
    errno.EDQUOT: "is over its quota: free some space and try again",
    errno.EACCES: "does not permit this: give yourself the right to read and write it, or name another one",
    errno.EROFS: "cannot be written, because its filesystem is mounted read-only: name another one",
    errno.ENOENT: "is gone: restore the folder, or name another one",
    errno.ENOTDIR: "is not a folder: name another one",
    errno.ESTALE: "is gone: mount its filesystem again",
    errno.EPERM: "does not permit this: use a folder that you own, on a filesystem with hard links",
    errno.ENOTSUP: "is on a filesystem without hard links: use a folder on another one",
    errno.ENOLCK: "is on a filesystem without locks, so that nothing can be removed safely: mount it with locks",
}


def store_error(place: str, error: OSError) -> StoreError:
    """What to do about the failure of a system call; `place` is such as "the store /srv/adapters"."""
    return StoreError(f"{place} {_ADVICE.get(error.errno or 0, 'cannot be used')} ({error})")


@contextmanager
def reporting(place: str) -> Iterator[None]:
    """Turn the failures of system calls to `StoreError`."""
    try:
        yield
    except AdapterError:
        raise
    except OSError as error:
        raise store_error(place, error) from error


class Disk:
    """Every filesystem call by which a local store writes or lists, one method each.

    This is the seam of its tests: a subclass can count the calls, fail them, or die between any two of them.
    """

    def mkdir(self, path: Path) -> None:
        """Make the folder, unless it is there."""
        with suppress(FileExistsError):
            os.mkdir(path)

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file."""
        with open(path, "xb") as file:
            file.write(data)

    def copy(self, source: Path, target: Path) -> None:
        """Copy a regular file to a new one; a link is refused."""
        with open_regular(source) as reader, open(target, "xb") as writer:
            shutil.copyfileobj(reader, writer, 2**20)

    def chmod(self, path: Path, mode: int) -> None:
        os.chmod(path, mode)

    def fsync(self, path: Path) -> None:
        """Wait until the file's bytes survive a loss of power."""
        _fsync(path)

    def fsync_folder(self, path: Path) -> None:
        """Wait until the folder's entries survive a loss of power."""
        _fsync(path)

    def link(self, source: Path, target: Path) -> None:
        """Give the file a second name; raises `FileExistsError` if that is taken, so exactly one of many succeeds."""
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename the file over `target`, in one step."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def list(self, path: str) -> list[str]:
        return os.listdir(path)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
