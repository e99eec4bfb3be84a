"""Objects behind any fsspec URL, such as `s3://bucket/prefix`."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]  # it has no types
from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from loraloom.adapters.errors import AdapterError, StoreError
from loraloom.adapters.store.disk import Disk, reporting
from loraloom.adapters.store.holds import FOLDER, Holds
from loraloom.adapters.store.listings import Listings, Tree, group_of, split_groups, tree_of
from loraloom.adapters.store.stage import Stage, staged

_REQUESTS_AT_ONCE = 32

T = TypeVar("T")


class RemoteObjects:
    """Objects in an object storage.

    A small object is created by one conditional request ("only if there is none"), which the storage answers to exactly
    one of many clients with yes. Listings may be `refresh` seconds old, except that one's own writes are seen at once.

    Args:
        url: an fsspec URL.
        cache: a local folder; files on their way are made in its `stage`.
        refresh: seconds for which a listing is used again.
    """

    def __init__(self, url: str, cache: Path, refresh: float = 1.0) -> None:
        self._url = url.rstrip("/")
        self._stages = cache / "stage"
        self._listings = Listings(refresh)
        self._filesystem, self._root = _filesystem(self._url)

    @property
    def url(self) -> str:
        return self._url

    def check(self) -> None:
        """Nothing to look at: an empty store and none look the same in an object storage."""

    def create(self, path: str, data: bytes) -> bool:
        self._refuse_without_exclusive_creation()
        try:
            self._filesystem.pipe_file(self._full(path), data, mode="create")
            return True
        except Exception as error:
            # The storage has refused, or its answer was lost: look whose object is there.
            found = self.read(path)
            if found is None:
                raise self._error(error) from error
            return found == data
        finally:
            self._forget(path)

    def create_file(self, path: str, source: Path) -> bool:
        folder, name = path.rsplit("/", 1)
        if name in self.list(folder):
            return False
        self.replace_file(path, source)
        return True

    def replace_file(self, path: str, source: Path) -> None:
        with self._reporting():
            self._filesystem.put_file(str(source), self._full(path))
        self._forget(path)

    def read(self, path: str) -> bytes | None:
        with self._reporting():
            try:
                # With a start, s3fs asks once, and not for the size first.
                return bytes(self._filesystem.cat_file(self._full(path), start=0))
            except FileNotFoundError:
                return None

    def sha256(self, path: str) -> str | None:
        with self._reporting():
            try:
                with self._filesystem.open(self._full(path), "rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                return None

    def fetch(self, path: str, target: Path) -> bool:
        """Download an object of any size to a new local file. False: there is none."""
        with self._reporting():
            try:
                self._filesystem.get_file(self._full(path), str(target))
            except FileNotFoundError:
                return False
        return True

    def list(self, folder: str) -> list[str]:
        group = group_of(folder)
        tree = self._listings.get(group)
        if tree is None:
            began = time.monotonic()
            tree = self._find(group) if "/" in group else self._children(group)
            self._listings.put(group, began, tree)
        return tree.get(folder, [])

    def refresh(self, folder: str) -> None:
        """List the folder with all below it in one go."""
        began = time.monotonic()
        groups = {group_of(folder): Tree()} | split_groups(self._find(folder))
        for group, part in groups.items():
            self._listings.put(group, began, part)

    def map(self, function: Callable[[str], T], items: Iterable[str]) -> Iterator[T]:
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            yield from pool.map(function, items)

    def staged(self) -> AbstractContextManager[Stage]:
        place = f"the cache {self._stages.parent}"
        with reporting(place):
            self._stages.parent.mkdir(parents=True, exist_ok=True)
        return staged(self._stages, Disk(), place)

    def kept(self, digests: Iterable[str]) -> AbstractContextManager[None]:
        return Holds(self).kept(digests)

    def removable(self, digests: Iterable[str]) -> AbstractContextManager[frozenset[str]]:
        return Holds(self).removable(digests)

    def size(self, path: str) -> int:
        with self._reporting():
            found = self._filesystem.find(self._full(path), detail=True)
        return sum(int(info.get("size") or 0) for info in found.values())

    def remove(self, path: str) -> None:
        with self._reporting(), suppress(FileNotFoundError):
            self._filesystem.rm(self._full(path), recursive=True)
        self._forget(path)

    def left_over(self) -> Sequence[str]:
        self.refresh(FOLDER)
        return Holds(self).left_over()

    def _find(self, folder: str) -> Tree:
        with self._reporting():
            found = self._filesystem.find(self._full(folder))
        tree = tree_of(path[len(self._root) + 1 :] for path in found)
        return {place: names for place, names in tree.items() if f"{place}/".startswith(f"{folder}/")}

    def _children(self, folder: str) -> Tree:
        with self._reporting():
            try:
                found = self._filesystem.ls(self._full(folder), detail=False)
            except FileNotFoundError:
                return {}
        return {folder: [path.rstrip("/").rsplit("/", 1)[1] for path in found]}

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _forget(self, path: str) -> None:
        self._listings.forget(group_of(path))
        self._listings.forget(path.split("/", 1)[0])

    def _refuse_without_exclusive_creation(self) -> None:
        # fsspec's own `pipe_file` looks first and writes then, so that two clients can both be first.
        inherited = type(self._filesystem).pipe_file is AbstractFileSystem.pipe_file
        if inherited and not isinstance(self._filesystem, AsyncFileSystem):
            raise StoreError(
                f"the store {self._url} can only be read: its storage cannot create an object exclusively, so that "
                "two writers could overwrite each other. Use a local folder or S3 for writing"
            )

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except AdapterError:
            raise
        except Exception as error:  # fsspec's many backends raise errors of their own
            raise self._error(error) from error

    def _error(self, error: Exception) -> StoreError:
        if isinstance(error, FileNotFoundError):
            return StoreError(f"the store {self._url} is gone: create its bucket, or name another store ({error})")
        if isinstance(error, PermissionError):
            return StoreError(f"the store {self._url} does not permit this: check the credentials ({error})")
        return StoreError(f"the store {self._url} cannot be used now: {type(error).__name__}: {error}")


def _filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        filesystem, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise StoreError(f"the store {url} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise StoreError(f"the store {url} is neither a folder nor a URL that fsspec knows: {error}") from error
    return filesystem, root.rstrip("/")
