"""Objects: bytes under a path, created once, exclusively, and never changed. A store is made of nothing else."""

import errno
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from loraloom.adapters.store.disk import Disk, reporting, store_error
from loraloom.adapters.store.locks import Locks
from loraloom.adapters.store.stage import Stage, is_abandoned, remove_tree, size_of, staged

T = TypeVar("T")

MARK = "store.json"
"""The object that every store has once something was written to it."""


class Objects(Protocol):
    """Where the objects of a store live. Paths are relative, with "/"; every method may raise `StoreError`."""

    @property
    def url(self) -> str:
        """How people name the store."""

    def check(self) -> None:
        """Raise `StoreError` if the place of the store itself is gone."""

    def create(self, path: str, data: bytes) -> bool:
        """Create a small object, durably. False: there is one already, and it stays as it is."""

    def create_file(self, path: str, source: Path) -> bool:
        """Create an object of any size from a file in a stage; False as in `create`."""

    def replace_file(self, path: str, source: Path) -> None:
        """Put a file in place of a damaged object, in one step. Only for objects whose bytes follow from their path."""

    def read(self, path: str) -> bytes | None:
        """The whole object; None if there is none."""

    def sha256(self, path: str) -> str | None:
        """The hex SHA-256 of the object; None if there is none."""

    def list(self, folder: str) -> list[str]:
        """The names of the objects and folders in `folder`, in any order; none if there is no such folder."""

    def refresh(self, folder: str) -> None:
        """Let the next `list` of `folder` and below see what is there now; there may be a delay otherwise."""

    def map(self, function: Callable[[str], T], items: Iterable[str]) -> Iterator[T]:
        """`map`, with as many requests under way at once as the place bears."""

    def staged(self) -> AbstractContextManager[Stage]:
        """A local folder of one's own, to make files in."""

    def kept(self, digests: Iterable[str]) -> AbstractContextManager[None]:
        """Within the block, nobody removes what these digests name. A publisher holds it until its record is there."""

    def removable(self, digests: Iterable[str]) -> AbstractContextManager[frozenset[str]]:
        """Those of the digests on which nobody relies, and can begin to within the block."""

    def size(self, path: str) -> int:
        """The bytes of an object, or of all in a folder; 0 if there is none."""

    def remove(self, path: str) -> None:
        """Remove an object, or a folder with all that is in it, if there is one. Nothing that a record names."""

    def left_over(self) -> Sequence[str]:
        """The paths of what killed writers have left while they worked, once it is certain that they have ended."""


class LocalObjects:
    """Objects as files below a folder.

    A file is written aside, made durable, and only then linked to its name: so there is never a part of an object
    under its name, and of many processes that create one object, exactly one does.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root
        self._place = f"the store {root}"
        self._prefix = f"{root}/"
        self._disk = disk or Disk()
        self._durable: set[Path] = set()
        self._begun = False

    @property
    def url(self) -> str:
        return str(self.root)

    def check(self) -> None:
        """See that the store is there; where it was begun, its mark is: an empty mount point is none."""
        with reporting(self._place):
            if (self.root / MARK).exists():
                self._begun = True
            elif self._begun or not self.root.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url)

    def begin(self) -> None:
        """Make the folder of the store, unless it is there."""
        missing = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        with reporting(self._place):
            for folder in reversed(missing):
                self._disk.mkdir(folder)
                self._disk.fsync_folder(folder.parent)

    def create(self, path: str, data: bytes) -> bool:
        source = self.root / "stage" / uuid.uuid4().hex
        with reporting(self._place):
            self._disk.mkdir(source.parent)
            try:
                self._disk.write(source, data)
                return self.create_file(path, source)
            finally:
                # What has been created stays created, even if what it was made from cannot be removed.
                with suppress(OSError):
                    self._disk.unlink(source)

    def create_file(self, path: str, source: Path) -> bool:
        with reporting(self._place):
            target = self._prepare(path, source)
            try:
                created = self._link(source, target)
            except FileNotFoundError:
                # Another process has removed the folder, emptied of garbage, since this one made it.
                self._durable.discard(target.parent)
                self._make_folder(target.parent)
                created = self._link(source, target)
            # Also when somebody else was first: its maker may have died before this.
            self._disk.fsync_folder(target.parent)
            return created

    def replace_file(self, path: str, source: Path) -> None:
        with reporting(self._place):
            target = self._prepare(path, source)
            self._disk.replace(source, target)
            self._disk.fsync_folder(target.parent)

    def read(self, path: str) -> bytes | None:
        try:
            return self._disk.read(self._prefix + path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(self._place, error) from error

    def sha256(self, path: str) -> str | None:
        with reporting(self._place):
            try:
                with open(self.root / path, "rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                return None

    def list(self, folder: str) -> list[str]:
        try:
            return self._disk.list(self._prefix + folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise store_error(self._place, error) from error

    def refresh(self, folder: str) -> None:
        """Nothing to do: every `list` looks."""

    def map(self, function: Callable[[str], T], items: Iterable[str]) -> Iterator[T]:
        return map(function, items)

    def staged(self) -> AbstractContextManager[Stage]:
        return staged(self.root / "stage", self._disk, self._place)

    def kept(self, digests: Iterable[str]) -> AbstractContextManager[None]:
        return Locks(self.root).kept(digests)

    def removable(self, digests: Iterable[str]) -> AbstractContextManager[frozenset[str]]:
        return Locks(self.root).removable(digests)

    def size(self, path: str) -> int:
        with reporting(self._place):
            return size_of(self.root / path)

    def remove(self, path: str) -> None:
        with reporting(self._place):
            remove_tree(self.root / path, self._disk)

    def left_over(self) -> Sequence[str]:
        with reporting(self._place):
            return [f"stage/{name}" for name in self.list("stage") if is_abandoned(self.root / "stage" / name)]

    def _prepare(self, path: str, source: Path) -> Path:
        target = self.root / path
        self._disk.chmod(source, 0o444)
        self._disk.fsync(source)
        self._make_folder(target.parent)
        return target

    def _make_folder(self, folder: Path) -> None:
        """Make the folder durable in its parent, and that in its own, once a process: another may have died between."""
        if folder == self.root or folder in self._durable:
            return
        self._make_folder(folder.parent)
        try:
            self._disk.mkdir(folder)
        except FileNotFoundError:
            self._durable.clear()
            raise
        self._disk.fsync_folder(folder.parent)
        self._durable.add(folder)

    def _link(self, source: Path, target: Path) -> bool:
        try:
            self._disk.link(source, target)
        except FileExistsError:
            # NFS repeats a call whose answer was lost, and then finds its own link.
            return os.path.samefile(source, target)
        return True
