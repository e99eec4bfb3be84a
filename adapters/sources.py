"""Where an adapter comes from: a folder, the Hugging Face Hub, or any URL that fsspec reads."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from loraloom.adapters import hub
from loraloom.adapters.errors import SourceError
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE

WANTED = (CONFIG_FILE, WEIGHTS_FILE, "README.md")
"""The files that are fetched; the last may be absent."""

MAX_BYTES = 8 * 2**30
"""How much is fetched for one adapter at most, unless the caller says otherwise."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::|://)", re.IGNORECASE)
_FILES = "files"
_CHUNK = 2**20
_KEPT_SECONDS = 24 * 3600
# What the various filesystems call a file's identity.
_IDENTITY = ("ETag", "etag", "md5", "crc32c", "generation", "LastModified", "last_modified", "mtime", "created")


@contextmanager
def fetched(source: str, cache: Path, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """A local folder with the files of the adapter that `source` names, for the time of the `with` block.

    Args:
        source: a folder, which is used in place; `hf:org/name[@revision]`, or `org/name[@revision]` where no such
            folder exists; or a URL such as `s3://bucket/path`, of the folder that holds `adapter_config.json`.
        cache: a folder for what is fetched. What an interrupted fetch completed is used by the next one.
        max_bytes: refuse to fetch more.

    Raises:
        SourceError: it is not there, not allowed, too large, or cannot be reached.
    """
    local = source.removeprefix("file://")
    if os.path.isdir(local):
        yield Path(local)
        return
    if source.startswith("hf:"):
        fetch = _from_hub(source.removeprefix("hf:"), cache, max_bytes)
    elif _URL.match(source):
        fetch = _from_url(source.rstrip("/"), cache, max_bytes)
    elif _HUB_ID.fullmatch(source) and not os.path.exists(source):
        fetch = _from_hub(source, cache, max_bytes)
    else:
        raise SourceError(f"{source!r} is not a folder: give the one that holds {CONFIG_FILE}, a URL, or hf:org/name")
    with fetch as folder:
        if not (folder / WEIGHTS_FILE).is_file():
            raise SourceError(f"{source} has no {WEIGHTS_FILE}, and only safetensors are read: convert it with peft")
        yield folder


@contextmanager
def _from_hub(reference: str, cache: Path, max_bytes: int) -> Iterator[Path]:
    repo, _, revision = reference.partition("@")
    sizes = hub.file_sizes(repo, revision or None)
    _check_size(sum(sizes.get(name, 0) for name in WANTED), max_bytes)
    try:
        snapshot = hub.snapshot(repo, revision or None, WANTED)
    except Exception as error:
        raise SourceError(hub.explain(error, repo)) from error
    _prepare(cache)
    # The Hub's cache is made of links, which an adapter's folder may not have.
    with TemporaryDirectory(dir=cache) as folder:
        for name in WANTED:
            if (snapshot / name).is_file():
                shutil.copyfile(snapshot / name, Path(folder, name))
        yield Path(folder)


@contextmanager
def _from_url(url: str, cache: Path, max_bytes: int) -> Iterator[Path]:
    from filelock import FileLock

    _prepare(cache)
    folder = cache / hashlib.sha256(url.encode()).hexdigest()[:32]
    # Held until the caller is done: a second fetch could replace one file between the caller's reads of the two.
    with FileLock(f"{folder}.lock"):
        _download(url, folder, max_bytes)
        yield folder / _FILES


def _download(url: str, folder: Path, max_bytes: int) -> None:
    """Bring the wanted files to `folder`/files; `folder`/*.json tell which version of each is there."""
    (folder / _FILES).mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    try:
        filesystem, root = _filesystem(url)
        done = 0
        for name in WANTED:
            try:
                done += _fetch(filesystem, f"{root}/{name}", folder, done, max_bytes)
            except FileNotFoundError:
                (folder / _FILES / name).unlink(missing_ok=True)
                if name == CONFIG_FILE:
                    raise
    except SourceError:
        raise
    except Exception as error:  # every filesystem has errors of its own
        raise SourceError(_explain(url, error)) from error


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    filesystem, root = url_to_fs(url)
    filesystem.invalidate_cache()
    return filesystem, root


def _fetch(filesystem: Any, remote: str, folder: Path, done: int, max_bytes: int) -> int:
    """Bring one file to `folder`/files, unless this version of it is there; returns its bytes.

    `done` bytes of the allowed `max_bytes` belong to the files before it.
    """
    info = filesystem.info(remote)
    size, version = info.get("size"), _version(info)
    target = folder / _FILES / remote.rpartition("/")[2]
    stamp = folder / f"{target.name}.json"
    if version and _read(stamp) == version and target.is_file() and target.stat().st_size == size:
        return target.stat().st_size
    _check_size(done + (size or 0), max_bytes)
    partial = folder / f"{target.name}.part"
    with filesystem.open(remote, "rb") as source, partial.open("wb") as file:
        copied = _copy(source, file, done, max_bytes)
    if size is not None and copied != size:
        raise SourceError(f"{remote} came as {copied} bytes instead of {size}: try again")
    os.replace(partial, target)
    stamp.write_text(version)
    return copied


def _version(info: Mapping[str, Any]) -> str:
    """What tells one version of a remote file from the next, or nothing where its filesystem says nothing."""
    tags = [str(info[key]) for key in _IDENTITY if info.get(key)]
    return json.dumps([info.get("size"), tags]) if tags else ""


def _copy(source: Any, target: BinaryIO, done: int, max_bytes: int) -> int:
    copied = 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        _check_size(done + copied, max_bytes)
        target.write(chunk)
    return copied


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise SourceError(
            f"the adapter is larger than the {max_bytes} bytes that may be fetched: raise the limit if it is right"
        )


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _prepare(cache: Path) -> None:
    """Make the folder, and remove from it what nobody fetched again for a day."""
    from filelock import FileLock, Timeout

    cache.mkdir(parents=True, exist_ok=True)
    for folder in cache.iterdir():
        # Another process may be doing the same, or be using it.
        with suppress(FileNotFoundError, Timeout):
            if folder.is_dir() and folder.stat().st_mtime < time.time() - _KEPT_SECONDS:
                with FileLock(f"{folder}.lock", timeout=0):
                    shutil.rmtree(folder)


def _explain(url: str, error: Exception) -> str:
    scheme = url.partition(":")[0].lower()
    if isinstance(error, ImportError):
        extra = ": pip install 'loraloom[s3]'" if scheme in ("s3", "s3a") else ""
        return f"{scheme}:// needs a package that is not installed ({error}){extra}"
    if isinstance(error, FileNotFoundError):
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return f"there is no {CONFIG_FILE} to be read under {url}{cause}: give the URL of the folder that holds it"
    if isinstance(error, PermissionError):
        return f"{url} may not be read with the credentials that are set: {error}"
    return f"{url} could not be read: {type(error).__name__}: {error}"
