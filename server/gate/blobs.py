"""Verified directories of adapters, for the length of a lease."""

import threading
from pathlib import Path

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.store import Store

Signature = tuple[tuple[int, int, int], ...]


class VerifiedBlobs:
    """Hands out a store's directories after checking their digest.

    A directory is hashed before its first use and again whenever one of its files is no longer the same file of the
    same size and time, so that damage behind the server's back is found before the engine reads it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._verified: dict[str, Signature] = {}
        self._lock = threading.Lock()

    def acquire(self, digest: str) -> Path:
        """The directory of an adapter's normal form, verified and kept until `release`.

        Raises:
            DamagedBlob: files are missing, or their bytes have changed.
        """
        folder = self._store.acquire(digest)
        try:
            self._verify(digest, folder)
        except BaseException:
            self._store.release(digest)
            raise
        return folder

    def release(self, digest: str) -> None:
        """The directory is no longer needed."""
        self._store.release(digest)

    def _verify(self, digest: str, folder: Path) -> None:
        signature = _signature(digest, folder)
        with self._lock:
            known = self._verified.get(digest)
        if signature == known:
            return
        self._store.check(digest)
        with self._lock:
            self._verified[digest] = signature


def _signature(digest: str, folder: Path) -> Signature:
    try:
        stats = [(folder / name).stat() for name in ("adapter_config.json", "adapter_model.safetensors")]
    except OSError as error:
        raise DamagedBlob(digest, f"{error.filename} cannot be read ({error.strerror})") from error
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)
