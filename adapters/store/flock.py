"""Locks on files: the kernel keeps them, and takes them back from a process that dies."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""How a filesystem says that it may be read and not written."""

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""How one says that it has no locks."""


def lock_file(path: Path, how: int) -> int:
    """Lock the file, made if there is none, and return its open descriptor.

    Args:
        how: `fcntl.LOCK_SH` or `LOCK_EX`, with `LOCK_NB` in order not to wait.

    Raises:
        BlockingIOError: with `LOCK_NB`, somebody else holds it.
    """
    while True:
        lock = _open(path)
        try:
            fcntl.flock(lock, how)
            # Whoever held it while we waited may have removed the file that we have locked now.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def unlock(lock: int) -> None:
    """Give up the lock, also where a forked child has the descriptor too, and close it."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _open(path: Path) -> int:
    try:
        # NFS wants to be able to write before it gives an exclusive lock.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
