"""Where adapters in normal form lie as local folders, for whoever loads them."""

from pathlib import Path
from typing import Protocol

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.normal import FILES
from loraloom.adapters.store.bundles import Bundles
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


class LocalBlobs:
    """The folders of a local store themselves, from which nothing is ever moved."""

    def __init__(self, objects: LocalObjects) -> None:
        self._objects = objects
        self._bundles = Bundles(objects, "blobs")

    def acquire(self, digest: str) -> Path:
        folder = self._objects.root / "blobs" / digest
        for name in FILES:
            if not (folder / name).is_file():
                self._objects.check()
                raise DamagedBlob(digest, f"{folder / name} is missing")
        return folder

    def release(self, digest: str) -> None:
        """Nothing to do."""

    def check(self, digest: str) -> None:
        self._bundles.check(digest)
