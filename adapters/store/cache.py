"""A bounded local cache of a remote store's blobs, which all processes of a machine may share."""

import fcntl
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from loraloom.adapters.errors import DamagedBlob, InvalidAdapter
from loraloom.adapters.normal import FILES, digest_of
from loraloom.adapters.store.disk import Disk, reporting
from loraloom.adapters.store.flock import lock_file, unlock
from loraloom.adapters.store.remote import RemoteObjects
from loraloom.adapters.store.stage import is_abandoned, remove_tree, size_of, staged


@dataclass(slots=True)
class _Lease:
    """The use of one entry by this process: a shared lock on it, open as `lock` while `users` is above zero."""

    lock: int
    users: int = 0
    filling: threading.Lock = field(default_factory=threading.Lock)


class CachedBlobs:
    """Blobs as `<folder>/<digest>/…`, downloaded at their first use and evicted by the time of their last.

    A process that uses an entry holds a shared `flock` on `<digest>.lock` beside it, and one that evicts it an
    exclusive one. The kernel takes back the locks of a process that dies.

    Args:
        limit: bytes to keep; only what is in use at one time may exceed it.
    """

    def __init__(self, objects: RemoteObjects, folder: Path, limit: int) -> None:
        self._objects = objects
        self._folder = folder
        self._stages = folder / "stage"
        self._place = f"the cache {folder}"
        self._limit = limit
        self._leases: dict[str, _Lease] = {}
        self._mutex = threading.Lock()

    def acquire(self, digest: str) -> Path:
        with reporting(self._place):
            lease = self._enter(digest)
            try:
                with lease.filling:
                    if not self._is_complete(digest):
                        self._download(digest)
                        self._evict()
            except BaseException:
                self.release(digest)
                raise
        return self._folder / digest

    def release(self, digest: str) -> None:
        with self._mutex:
            lease = self._leases[digest]
            lease.users -= 1
            if not lease.users:
                del self._leases[digest]
                os.utime(lease.lock)
                unlock(lease.lock)

    def check(self, digest: str) -> None:
        folder = self.acquire(digest)
        try:
            with reporting(self._place), self._leases[digest].filling:
                if not _holds(folder, digest):
                    self._download(digest)
        finally:
            self.release(digest)

    def _enter(self, digest: str) -> _Lease:
        with self._mutex:
            lease = self._leases.get(digest)
            if lease is None:
                lease = self._leases[digest] = _Lease(lock_file(self._lock_file(digest), fcntl.LOCK_SH))
                os.utime(lease.lock)
            lease.users += 1
            return lease

    def _is_complete(self, digest: str) -> bool:
        return all((self._folder / digest / name).is_file() for name in FILES)

    def _download(self, digest: str) -> None:
        """Put the entry's files in their places, each in one step, after all are checked."""
        with staged(self._stages, Disk(), self._place) as stage:
            for name in FILES:
                if not self._objects.fetch(f"blobs/{digest}/{name}", stage.folder / name):
                    raise DamagedBlob(digest, f"blobs/{digest}/{name} is missing in {self._objects.url}")
                stage.seal(name)
            if not _holds(stage.folder, digest):
                raise DamagedBlob(digest, f"blobs/{digest} in {self._objects.url} holds other bytes")
            (self._folder / digest).mkdir(exist_ok=True)
            for name in FILES:
                os.replace(stage.folder / name, self._folder / digest / name)

    def _evict(self) -> None:
        """Remove the entries that were used least recently, until the rest is within the limit."""
        digests = {path.stem for path in self._folder.iterdir() if path != self._stages}
        sizes = {digest: size_of(self._folder / digest) for digest in digests}
        surplus = sum(sizes.values()) - self._limit
        for digest in sorted(digests, key=self._last_use):
            if surplus <= 0:
                break
            surplus -= sizes[digest] if self._drop(digest) else 0
        self._remove_abandoned_stages()

    def _last_use(self, digest: str) -> float:
        with suppress(FileNotFoundError):
            return self._lock_file(digest).stat().st_mtime
        return 0.0

    def _remove_abandoned_stages(self) -> None:
        for stage in self._stages.iterdir():
            if is_abandoned(stage):
                remove_tree(stage, Disk())

    def _drop(self, digest: str) -> bool:
        """Remove the entry. False: somebody uses it."""
        try:
            lock = lock_file(self._lock_file(digest), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(self._folder / digest, ignore_errors=True)
        self._lock_file(digest).unlink()
        unlock(lock)
        return True

    def _lock_file(self, digest: str) -> Path:
        return self._folder / f"{digest}.lock"


def _holds(folder: Path, digest: str) -> bool:
    with suppress(InvalidAdapter):
        return digest_of(folder) == digest
    return False
