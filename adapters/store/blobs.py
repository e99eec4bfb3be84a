"""Where adapters in normal form lie as local folders, for whoever loads them."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.normal import FILES
from loraloom.adapters.store.bundles import Bundles
from loraloom.adapters.store.flock import unlock
from loraloom.adapters.store.locks import Locks
from loraloom.adapters.store.objects import LocalObjects


class Blobs(Protocol):
    """Local folders of normal forms. Every `acquire` is paired with one `release`; both are thread-safe.

    Every method may raise `StoreError`, and `DamagedBlob` when the files are missing or wrong.
    """

    def acquire(self, digest: str) -> Path:
        """The folder of the normal form; it is not moved or removed before `release`."""

    def release(self, digest: str) -> None:
        """Give up one `acquire`."""

    def check(self, digest: str) -> None:
        """Read the local files again, all of them, and compare them with the digest."""


@dataclass(slots=True)
class _Lease:
    """The use of one folder by this process, which holds `lock` for it, if there can be one."""

    lock: int | None
    users: int = 0


class LocalBlobs:
    """The folders of a local store themselves, each locked against removal while this process uses it."""

    def __init__(self, objects: LocalObjects) -> None:
        self._objects = objects
        self._bundles = Bundles(objects, "blobs")
        self._locks = Locks(objects.root)
        self._leases: dict[str, _Lease] = {}
        self._mutex = threading.Lock()

    def acquire(self, digest: str) -> Path:
        self._folder(digest)
        if not self._join(digest):
            self._begin(digest)
        try:
            # It may have been removed just before the lock was there.
            return self._folder(digest)
        except BaseException:
            self.release(digest)
            raise

    def release(self, digest: str) -> None:
        with self._mutex:
            lease = self._leases[digest]
            lease.users -= 1
            if not lease.users:
                _end(self._leases.pop(digest).lock)

    def check(self, digest: str) -> None:
        self._bundles.check(digest)

    def _folder(self, digest: str) -> Path:
        folder = self._objects.root / "blobs" / digest
        for name in FILES:
            if not (folder / name).is_file():
                self._objects.check()
                raise DamagedBlob(digest, f"blobs/{digest}/{name} is missing")
        return folder

    def _join(self, digest: str) -> bool:
        """Use the lock that this process has. False: it has none."""
        with self._mutex:
            if lease := self._leases.get(digest):
                lease.users += 1
            return lease is not None

    def _begin(self, digest: str) -> None:
        """Take the lock. Other threads go on meanwhile: this can wait for a removal."""
        lock = self._locks.share(digest)
        with self._mutex:
            lease = self._leases.setdefault(digest, _Lease(lock))
            lease.users += 1
        if lease.lock != lock:
            _end(lock)


def _end(lock: int | None) -> None:
    if lock is not None:
        unlock(lock)
