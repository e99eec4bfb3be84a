"""A disk of its own for the store, which can be made read-only, full, slow, or be taken away.

It is a small tmpfs. The campaign runs in a mount namespace of its own, so nothing of it stays behind.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.errors import CannotInject

_PIECE = 1 << 20


@dataclass(frozen=True)
class Disk:
    """A mounted disk.

    Attributes:
        folder: where it is mounted.
    """

    folder: Path

    @property
    def store(self) -> Path:
        """The store on it."""
        return self.folder / "store"

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be opened for writing; what is open already can be written, and holds up no mount by that."""
        aside = self.folder / "aside"  # a mount through which somebody writes at this moment cannot be made so
        aside.mkdir(exist_ok=True)
        _run("mount", "--bind", str(self.store), str(aside))
        _run("mount", "-o", "remount,bind,ro", str(aside))
        _run("mount", "--move", str(aside), str(self.store))
        try:
            yield
        finally:
            _run("umount", "--lazy", str(self.store))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is free."""
        filling = self.folder / "filling"
        try:
            with suppress(OSError), filling.open("wb", buffering=0) as file:
                while True:  # until there is no space; what others free meanwhile counts, too
                    file.write(bytes(_PIECE))
            yield
        finally:
            filling.unlink(missing_ok=True)

    @contextmanager
    def without_store(self) -> Iterator[None]:
        """The store's folder is gone."""
        away = self.store.with_name("away")
        self.store.rename(away)
        try:
            yield
        finally:
            if self.store.exists():  # whoever made it, what is in it must not hide the store
                self.store.rename(self.store.with_name(f"made-{time.monotonic_ns()}"))
            away.rename(self.store)

    @contextmanager
    def covered(self) -> Iterator[None]:
        """An empty folder is where the store was, as a disk leaves it that is not mounted."""
        _run("mount", "-t", "tmpfs", "-o", "size=64m", "empty", str(self.store))
        try:
            yield
        finally:
            _run("umount", "--lazy", str(self.store))


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Disk]:
    """Mount an empty disk.

    Raises:
        CannotInject: this machine does not permit it.
    """
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "disk", str(folder))
    try:
        yield Disk(folder)
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise CannotInject(f"`{' '.join(command)}` fails here: {reason}") from error
