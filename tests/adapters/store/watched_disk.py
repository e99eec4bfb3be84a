"""Disks that note, fail or die at a chosen call: the real filesystem, through the seam that `Disk` is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loraloom.adapters.store.disk import Disk

READS = ("list", "read")
WRITES = tuple(name for name in vars(Disk) if not name.startswith("_") and name not in READS)

DIED = 77
"""The exit status of a process whose disk died."""


class UnsyncedDisk(Disk):
    """Does not wait for the device: what a process has written outlives it all the same, unless the power fails."""

    def fsync(self, path: Path) -> None:
        pass

    def fsync_folder(self, path: Path) -> None:
        pass


class WatchedDisk(UnsyncedDisk):
    """Tells of every call, before and after it."""

    def before(self, call: str, *arguments: Any) -> None:
        pass

    def after(self, call: str, *arguments: Any) -> None:
        pass


def _watched(call: str) -> Callable[..., Any]:
    def method(self: WatchedDisk, *arguments: Any) -> Any:
        self.before(call, *arguments)
        result = getattr(UnsyncedDisk, call)(self, *arguments)
        self.after(call, *arguments)
        return result

    return method


for _call in (*WRITES, *READS):
    setattr(WatchedDisk, _call, _watched(_call))


class NotingDisk(WatchedDisk):
    """Notes its calls, each with the path that it changes or reads."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Path]] = []

    def before(self, call: str, *arguments: Any) -> None:
        path = arguments[1] if call in ("link", "replace", "copy") else arguments[0]
        self.calls.append((call, Path(path)))

    def writes(self) -> list[tuple[str, Path]]:
        return [(call, path) for call, path in self.calls if call in WRITES]


class FailingDisk(WatchedDisk):
    """Refuses its `at`-th write, counting from 0, and all that follow."""

    def __init__(self, at: int, error: int) -> None:
        self.left = at
        self.error = error

    def before(self, call: str, *arguments: Any) -> None:
        if call in WRITES:
            self.left -= 1
            if self.left < 0:
                raise OSError(self.error, os.strerror(self.error), str(arguments[0]))


class DyingDisk(WatchedDisk):
    """Ends the process at its `at`-th write, counting from 0: "before" it or "after" it.

    Or "within" it: then only those of a file's bytes count, and half of them are written.
    """

    def __init__(self, at: int, moment: str) -> None:
        self.left = at
        self.moment = moment

    def before(self, call: str, *arguments: Any) -> None:
        if self._is_point(call, "before"):
            os._exit(DIED)
        if self._is_point(call, "within"):
            path, data = arguments
            path.write_bytes(data[: len(data) // 2])
            os._exit(DIED)

    def after(self, call: str, *arguments: Any) -> None:
        if self._is_point(call, "after"):
            os._exit(DIED)
        self.left -= call == "write" if self.moment == "within" else call in WRITES

    def _is_point(self, call: str, moment: str) -> bool:
        counts = call == "write" if moment == "within" else call in WRITES
        return self.moment == moment and counts and self.left == 0
