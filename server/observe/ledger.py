"""The usage ledger: one line for each request that asked for a model, written beside the server's work.

    usage-<host>-<process>-<day>-<number>.jsonl

Every process writes files of its own, and none that was there before, so that no two writers ever share one. A line is
written within a second after its request has ended, and is on the disk itself within ten: a killed process loses the
requests of its last second, a machine without power those of the last ten. What cannot be written waits in memory, up
to a bound; beyond it lines are counted as dropped, and requests go on.
"""

import atexit
import json
import logging
import os
import re
import shutil
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loraloom.server.observe.account import Account

log = logging.getLogger("vllm.loraloom.ledger")

PACE = 0.5
"""Seconds between two writings."""
SLOWEST = 10.0
"""Seconds between two attempts while it cannot be written; each takes twice as long to come as the one before."""
PATIENCE = 5.0
"""Seconds that the end of a process waits for a disk that does not answer."""
SYNC = 10.0
"""Seconds between two times that the disk is told to keep what was written."""
MOST = 20_000
"""Lines that wait in memory; they take 10 to 40 MB."""
FILE_BYTES = 64 * 2**20
"""A file that is larger is followed by another."""


def line_of(account: Account) -> dict[str, Any]:
    """What the ledger says of a request; times in seconds, `began` in UTC."""
    return {
        "id": account.id,
        "key": account.access.key,
        "model": account.model,
        "path": account.path,
        "prompt": account.prompt,
        "cached": account.cached,
        "output": account.output,
        "estimated": account.estimated,
        "began": datetime.fromtimestamp(account.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "seconds": round(account.seconds, 4),
        "edge": _rounded(account.edge_queued),
        "engine": _rounded(account.engine_queued),
        "status": account.status,
        "ending": account.ending,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


class Ledger:
    """Writes lines to a folder, in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        most: int = MOST,
        file_bytes: int = FILE_BYTES,
        pace: float = PACE,
        patience: float = PATIENCE,
    ) -> None:
        """
        Args:
            folder: made if it is not there.
            most: lines that may wait.
            file_bytes: a file that is larger is followed by another.
            pace: seconds between two writings.
            patience: seconds that `close` waits for the disk.
        """
        self._folder = folder
        self._most = most
        self._pace = pace
        self._patience = patience
        self._pages = _Pages(folder, file_bytes)
        self._ended: deque[Account] = deque()
        self._lines: list[bytes] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loraloom-ledger", daemon=True)
        self.pause = pace
        self.written = 0
        self.dropped = 0
        self.failing = False
        self.free_bytes: int | None = None

    def start(self) -> None:
        """Begin to write; what waits is also written when the process ends by itself."""
        atexit.register(self.close)
        self._thread.start()

    def add(self, account: Account) -> None:
        """Let a request that has ended be written down; takes a microsecond, and never fails."""
        if self._waiting >= self._most:
            self.dropped += 1
        else:
            self._ended.append(account)

    def close(self) -> None:
        """Have what waits written, and end; a second time does nothing.

        A disk that hangs lets nobody go who has asked it for something, so only the thread does.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread.ident is None:
            self._thread.start()
        self._thread.join(self._patience)
        atexit.unregister(self.close)
        if lost := self._waiting:
            self.dropped += lost
            log.error("%d lines of the usage ledger in %s are lost: it could not be written", lost, self._folder)

    def write(self) -> None:
        """Write what waits, now; only one thread at a time may do so."""
        try:
            self._encode()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_lines()
            self.free_bytes = shutil.disk_usage(self._folder).free
        except Exception as error:  # whatever it is, the next attempt may be without it
            self._fail(error)
        else:
            self._recover()

    @property
    def _waiting(self) -> int:
        return len(self._ended) + len(self._lines)

    def _encode(self) -> None:
        while self._ended:
            account = self._ended.popleft()
            try:
                self._lines.append(_encoded(account))
            except Exception:
                self.dropped += 1
                raise

    def _fail(self, error: Exception) -> None:
        """Say so once, and try again more and more seldom."""
        if not self.failing:
            log.error(
                "the usage ledger in %s cannot be written: %s. Up to %d lines wait in memory; requests go on",
                self._folder, error, self._most, exc_info=None if isinstance(error, OSError) else error,
            )  # fmt: skip
        self.failing = True
        self.pause = min(2 * self.pause, SLOWEST)

    def _recover(self) -> None:
        if self.failing:
            log.warning("the usage ledger in %s is written again; %d lines were lost", self._folder, self.dropped)
        self.failing = False
        self.pause = self._pace

    def _write_lines(self) -> None:
        before = len(self._lines)
        try:
            self._pages.write(self._lines)
        finally:
            self.written += before - len(self._lines)

    def _run(self) -> None:
        while not self._closed.wait(self.pause):
            self.write()
        self.write()
        self._pages.close()


class _Pages:
    """The files of one process, one after the other."""

    def __init__(self, folder: Path, file_bytes: int) -> None:
        self._folder = folder
        self._file_bytes = file_bytes
        self._file: int | None = None
        self._path = folder
        self._day = ""
        self._number = 0
        self._size = 0
        self._unsure = 0.0  # since when there is something that the disk may not have

    def write(self, lines: list[bytes]) -> None:
        """Write lines, and take from the list those that are written as a whole; raises OSError."""
        try:
            while lines:
                part = lines[:1000]
                self._append(b"".join(part), part, lines)
            self._sync()
        except OSError:
            self.close()  # it may end in a part of a line: the next one begins a new file
            raise

    def close(self) -> None:
        """Let go of the current file; nothing is left of an empty one, as a full disk would get one every time."""
        file, self._file = self._file, None
        self._unsure = 0.0
        if file is not None:
            with suppress(OSError), os.fdopen(file, "wb"):
                os.fsync(file)
            if not self._size:
                self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink()
            self._number -= 1

    def _append(self, text: bytes, part: list[bytes], lines: list[bytes]) -> None:
        file = self._open()
        done = 0
        try:
            while done < len(text):
                done += os.write(file, text[done:])
        finally:
            del lines[: text[:done].count(b"\n")]
            self._size += done
            self._unsure = self._unsure or time.monotonic()

    def _open(self) -> int:
        """The file for what is written now; a new one after a day, or where the last is full or gone."""
        day = datetime.now(UTC).strftime("%Y%m%d")
        if self._file is not None and (day != self._day or self._size >= self._file_bytes or not self._path.exists()):
            self.close()
        if self._file is None:
            if day != self._day:
                self._day, self._number = day, 0
            self._file, self._size = self._create(), 0
        return self._file

    def _create(self) -> int:
        host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
        for number in range(self._number + 1, 10**6):
            path = self._folder / f"usage-{host}-{os.getpid()}-{self._day}-{number:04}.jsonl"
            try:
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
            except FileExistsError:
                continue
            self._path, self._number = path, number
            return file
        raise OSError(f"{self._folder} has no name left for another file of the usage ledger")

    def _sync(self) -> None:
        if self._file is not None and self._unsure and time.monotonic() - self._unsure >= SYNC:
            os.fsync(self._file)
            self._unsure = 0.0


def _encoded(account: Account) -> bytes:
    return json.dumps(line_of(account), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
