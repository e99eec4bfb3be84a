"""Model folders that are made once: under a lock, whole or not at all, and with a marker that tells damage."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = "loraloom-demo.json"
"""Written last into the model's folder: the size and SHA-256 of every other file."""

_HASHED_AT_EACH_CALL = 8 * 2**20
"""Larger files (the weights) are compared by size alone, so that a call for a finished model takes milliseconds."""


def default_folder(name: str) -> Path:
    """Where a demo model lies: in the user's cache directory (XDG base directory specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "loraloom", "models", name)


def make_once(
    target: Path, source: dict[str, str], make: Callable[[Path], None], progress: Callable[[str], None]
) -> None:
    """Make a folder, unless it is there whole and from this source.

    It appears under `target` whole or not at all; a damaged one is made anew. Of several processes one makes it and
    the others wait.

    Args:
        source: what the files are made from, for the marker.
        make: writes the files into a folder that does not exist yet.
        progress: receives a line of text where a damaged folder is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target), _stage(target) as stage:
        if not is_whole(target, source):
            make(stage / "new")
            write_marker(stage / "new", source)
            if target.exists():
                progress(f"Replacing what is in {target}: it is damaged, or was made from something else")
                target.rename(stage / "damaged")
            (stage / "new").rename(target)


def is_whole(folder: Path, source: dict[str, str]) -> bool:
    """Whether the folder was made from this source, and holds every file that its marker lists as it was written."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        files = marker.pop("files")
        whole = all(_describe(folder / name, want["sha256"]) == want for name, want in files.items())
        return bool(files) and whole and marker == source
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write_marker(folder: Path, source: dict[str, str]) -> None:
    """Write down the folder's files as they are now, once they are on the disk."""
    files = {path.name: _describe(path) for path in sorted(folder.iterdir())}
    for name in files:
        _sync(folder / name)
    (folder / MARKER).write_text(json.dumps({**source, "files": files}, indent=2) + "\n", encoding="utf-8")
    _sync(folder / MARKER)


def readable(folder: Path) -> None:
    """Let everybody read the weights: safetensors makes files that only their owner can read."""
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)


def digest(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(path: Path, known: str | None = None) -> dict[str, int | str]:
    """Size and SHA-256 of a file; a `known` digest is taken on trust for a large one."""
    size = path.stat().st_size
    if known is not None and size > _HASHED_AT_EACH_CALL:
        return {"size": size, "sha256": known}
    return {"size": size, "sha256": digest(path)}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One process at a time for this target; freed by the system when the process dies."""
    with Path(target.parent, f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _stage(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, for the holder of the lock; what a killed process left in it is removed."""
    folder = target.with_name(f".{target.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
