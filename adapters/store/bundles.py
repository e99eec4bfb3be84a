"""Bundles: a few files that belong together, in a folder named by the digest of what they hold."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.store.objects import Objects


def digest_of_files(hashes: Mapping[str, str]) -> str:
    """The digest of a bundle: SHA-256 of the lines that `sha256sum` prints for its files in the order of their names.

    Args:
        hashes: hex SHA-256 of each file, by its name.
    """
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def digest_of_folder(folder: Path) -> str:
    """The digest that the bundle of the files in `folder` has, or would have."""
    return digest_of_files(_hashes(folder))


class Bundles:
    """All bundles of one kind, such as `blobs/<digest>/…`.

    What a file holds follows from its path, so writing it a second time, or over a damaged one, can do no harm.
    """

    def __init__(self, objects: Objects, kind: str) -> None:
        self._objects = objects
        self._kind = kind

    def keep(self, folder: Path) -> str:
        """Store the files of `folder`, a stage, completing or repairing what is there; returns their digest."""
        hashes = _hashes(folder)
        digest = digest_of_files(hashes)
        for name, expected in hashes.items():
            path = self.path(digest, name)
            if not self._objects.create_file(path, folder / name) and self._objects.sha256(path) != expected:
                self._objects.replace_file(path, folder / name)
        return digest

    def check(self, digest: str) -> None:
        """Read all files of the bundle again; raises `DamagedBlob` unless they are what the digest says."""
        names = self._objects.list(f"{self._kind}/{digest}")
        if not names:
            raise DamagedBlob(digest, f"{self._kind}/{digest} is missing")
        hashes = {name: self._objects.sha256(self.path(digest, name)) or "" for name in names}
        if digest_of_files(hashes) != digest:
            raise DamagedBlob(digest, f"the files in {self._kind}/{digest} are not those that were stored")

    def digests(self) -> list[str]:
        """All bundles of this kind, complete or not."""
        return sorted(self._objects.list(self._kind))

    def path(self, digest: str, name: str) -> str:
        return f"{self._kind}/{digest}/{name}"


def _hashes(folder: Path) -> dict[str, str]:
    return {file.name: _sha256(file) for file in sorted(folder.iterdir())}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
