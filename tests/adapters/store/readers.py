"""Processes of a user who may read a store and not write it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.adapters.store.test_crash import clean_processes

NOBODY = 65534


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own may not be."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def take_away_writing(root: Path) -> None:
    """From the owner too, where that is not root."""
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)


def give_back_writing(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def start_reader(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start the function in a process that may not write what `take_away_writing` closed."""
    process = clean_processes().Process(target=_as_nobody, args=(target, *arguments))
    process.start()
    return process


def _as_nobody(target: Callable[..., None], *arguments: Any) -> None:
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    target(*arguments)
