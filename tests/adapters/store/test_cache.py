"""The local cache of a remote store: bounded, whole, and never without what is in use."""

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob, StoreError
from loraloom.adapters.normal import digest_of
from loraloom.adapters.store import Store
from loraloom.adapters.store.cache import CachedBlobs
from loraloom.adapters.store.remote import RemoteObjects
from tests.adapters.small_adapters import small_adapter

OpenCache = Callable[[float], CachedBlobs]


class CountingObjects(RemoteObjects):
    """Counts what it downloads."""

    def __init__(self, url: str, cache: Path) -> None:
        super().__init__(url, cache)
        self.fetched: list[str] = []

    def fetch(self, path: str, target: Path) -> bool:
        self.fetched.append(path)
        return super().fetch(path, target)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}"


@pytest.fixture
def digests(url: str, tmp_path: Path) -> list[str]:
    """Four published adapters of the same size."""
    store = Store.open(url, cache=tmp_path / "publisher")
    folders = [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(4)]
    return [store.publish(folder, f"sql{seed}").version.digest for seed, folder in enumerate(folders)]


@pytest.fixture
def objects(url: str, tmp_path: Path) -> CountingObjects:
    return CountingObjects(url, tmp_path / "cache")


@pytest.fixture
def open_cache(objects: CountingObjects, tmp_path: Path, digests: list[str]) -> OpenCache:
    """Opens one and the same cache anew, as another process would, with room for that many of the adapters."""
    probe = CachedBlobs(objects, tmp_path / "probe", 2**30)
    size = sum(path.stat().st_size for path in probe.acquire(digests[0]).iterdir())
    objects.fetched.clear()
    return lambda room: CachedBlobs(objects, tmp_path / "cache", int(room * size))


def held(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir() and path.name != "stage"}


def use(cache: CachedBlobs, digest: str) -> None:
    cache.acquire(digest)
    cache.release(digest)
    # The order of use is told by the file system's clock.
    time.sleep(0.01)


def test_a_blob_is_downloaded_once(open_cache: OpenCache, digests: list[str], objects: CountingObjects) -> None:
    for cache in (open_cache(9), open_cache(9)):
        for _ in range(2):
            assert digest_of(cache.acquire(digests[0])) == digests[0]
    assert len(objects.fetched) == 2


def test_threads_wait_for_one_download(open_cache: OpenCache, digests: list[str], objects: CountingObjects) -> None:
    cache, start, found = open_cache(9), threading.Barrier(8), []

    def acquire() -> None:
        start.wait()
        found.append(digest_of(cache.acquire(digests[0])))

    threads = [threading.Thread(target=acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [digests[0]] * 8
    assert len(objects.fetched) == 2


def test_what_was_used_least_recently_goes_first(open_cache: OpenCache, digests: list[str], tmp_path: Path) -> None:
    cache = open_cache(3)
    for index in (0, 1, 2, 0, 3):
        use(cache, digests[index])
    assert held(tmp_path) == {digests[0], digests[2], digests[3]}
    assert {path.stem for path in (tmp_path / "cache").glob("*.lock")} == held(tmp_path)


def test_the_end_of_a_use_counts(open_cache: OpenCache, digests: list[str], tmp_path: Path) -> None:
    cache = open_cache(2)
    cache.acquire(digests[0])
    use(cache, digests[1])
    cache.release(digests[0])
    use(cache, digests[2])
    assert held(tmp_path) == {digests[0], digests[2]}


def test_what_is_in_use_stays(open_cache: OpenCache, digests: list[str], tmp_path: Path) -> None:
    cache = open_cache(1)
    folder = cache.acquire(digests[0])
    cache.acquire(digests[0])
    cache.release(digests[0])
    for digest in digests[1:]:
        use(cache, digest)
    assert digest_of(folder) == digests[0]
    cache.release(digests[0])
    use(cache, digests[1])
    use(cache, digests[2])
    assert held(tmp_path) == {digests[2]}


def test_what_another_process_uses_stays(open_cache: OpenCache, digests: list[str]) -> None:
    folder = open_cache(1).acquire(digests[0])
    for digest in digests[1:]:
        use(open_cache(1), digest)
    assert digest_of(folder) == digests[0]


def hold_and_die(folder: Path, digest: str) -> None:
    CachedBlobs(RemoteObjects("memory://none", folder), folder, 0).acquire(digest)
    os._exit(0)


def test_what_a_dead_process_used_may_go(open_cache: OpenCache, digests: list[str], tmp_path: Path) -> None:
    use(open_cache(9), digests[0])
    process = multiprocessing.get_context("forkserver").Process(
        target=hold_and_die, args=(tmp_path / "cache", digests[0])
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    use(open_cache(1), digests[1])
    assert held(tmp_path) == {digests[1]}


def test_an_adapter_larger_than_the_cache_can_be_used(open_cache: OpenCache, digests: list[str]) -> None:
    cache = open_cache(0.5)
    assert digest_of(cache.acquire(digests[0])) == digests[0]


def test_a_download_with_other_bytes_is_refused(
    open_cache: OpenCache, digests: list[str], objects: CountingObjects, tmp_path: Path
) -> None:
    (tmp_path / "other").write_bytes(b"other")
    objects.replace_file(f"blobs/{digests[0]}/adapter_model.safetensors", tmp_path / "other")
    cache = open_cache(9)
    for _ in range(2):
        with pytest.raises(DamagedBlob, match="other bytes"):
            cache.acquire(digests[0])
    assert not (tmp_path / "cache" / digests[0]).exists()
    assert not list((tmp_path / "cache/stage").iterdir())


@pytest.mark.parametrize("loss", ["a file", "the folder", "some bytes", "a link"])
def test_a_damaged_copy_is_downloaded_again(open_cache: OpenCache, digests: list[str], loss: str) -> None:
    cache = open_cache(9)
    folder = cache.acquire(digests[0])
    if loss == "the folder":
        shutil.rmtree(folder)
    elif loss == "a file":
        (folder / "adapter_config.json").unlink()
    elif loss == "a link":
        (folder / "adapter_config.json").unlink()
        (folder / "adapter_config.json").symlink_to(folder / "adapter_model.safetensors")
    else:
        (folder / "adapter_config.json").chmod(0o644)
        (folder / "adapter_config.json").write_text("{}")
    cache.check(digests[0])
    assert digest_of(folder) == digests[0]


def test_a_cache_that_cannot_be_written_is_told(url: str, digests: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CachedBlobs(RemoteObjects(url, tmp_path / "file/cache"), tmp_path / "file/cache", 2**30)
    with pytest.raises(StoreError, match="the cache .* is not a folder"):
        cache.acquire(digests[0])


def test_stages_of_long_dead_downloads_are_removed(open_cache: OpenCache, digests: list[str], tmp_path: Path) -> None:
    for name, age in (("old", 2 * 24 * 3600), ("new", 0)):
        stage = tmp_path / "cache/stage" / name
        stage.mkdir(parents=True)
        os.utime(stage, (time.time() - age,) * 2)
    use(open_cache(9), digests[0])
    assert [path.name for path in (tmp_path / "cache/stage").iterdir()] == ["new"]
