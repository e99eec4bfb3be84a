"""Who relies on which digest of a local store: a lock file a digest, `locks/<digest>`.

A publisher holds it shared from before it puts the files until its record is there, and a server for as long as it uses
the files. Whoever removes them holds it exclusively. A lock ends with its process at the latest. On a filesystem that
has no locks, all goes on without them, except that nothing can be removed.
"""

import errno
import fcntl
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from loraloom.adapters.store.disk import reporting
from loraloom.adapters.store.flock import NO_LOCKS, READ_ONLY, lock_file, unlock

FULL = (errno.ENOSPC, errno.EDQUOT)
"""There is no room for a lock file."""
BY_DIGEST = ("facts", "originals", "blobs")
"""The folders of a store in which a folder is named by a digest."""


class Locks:
    """The locks of the store in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._place = f"the store {root}"

    def share(self, digest: str) -> int | None:
        """Take the lock of a digest, shared, waiting while somebody removes it; to be given up by `unlock`.

        None where that cannot be: the store is read-only or full and no publisher has left a lock file, or there are no
        locks.

        Raises:
            StoreError: the lock file cannot be made or opened.
        """
        with reporting(self._place):
            return self._share(digest, (*READ_ONLY, *NO_LOCKS, *FULL))

    @contextmanager
    def kept(self, digests: Iterable[str]) -> Iterator[None]:
        """Within the block, nobody removes what these digests name; raises `StoreError`."""
        with ExitStack() as held:
            for digest in sorted(set(digests)):
                with reporting(self._place):
                    lock = self._share(digest, NO_LOCKS)
                if lock is not None:
                    held.callback(unlock, lock)
            yield

    @contextmanager
    def removable(self, digests: Iterable[str]) -> Iterator[frozenset[str]]:
        """Those of the digests on which nobody relies, and can begin to within the block; raises `StoreError`."""
        with ExitStack() as held:
            yield frozenset(digest for digest in sorted(set(digests)) if self._exclude(digest, held))

    def _share(self, digest: str, tolerated: Container[int | None]) -> int | None:
        try:
            return lock_file(self._path(digest), fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in tolerated:
                raise
            return None

    def _exclude(self, digest: str, held: ExitStack) -> bool:
        with reporting(self._place), suppress(BlockingIOError):
            lock = lock_file(self._path(digest), fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.callback(self._give_up, digest, lock)
            return True
        return False

    def _give_up(self, digest: str, lock: int) -> None:
        # A server that may only read cannot make a lock file, so each stays as long as what it is for.
        if not any((self._root / kind / digest).exists() for kind in BY_DIGEST):
            with suppress(OSError):
                self._path(digest).unlink()
        unlock(lock)

    def _path(self, digest: str) -> Path:
        return self._root / "locks" / digest
