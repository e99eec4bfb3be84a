import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from huggingface_hub import constants

from loraloom.adapters.errors import SourceError
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, read_manifest
from loraloom.adapters.sources import WANTED, fetched

MakeAdapter = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


class OddFileSystem(MemoryFileSystem):
    """A memory filesystem that says another size than it delivers, or no size, or that reading is forbidden."""

    protocol = "odd"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    said: dict[str, Any] = {}
    forbidden = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("odd://").strip("/")

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {**super().info(path, **options), **self.said}

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        if self.forbidden:
            raise PermissionError("no")
        return super()._open(path, *args, **options)


@pytest.fixture
def odd(make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch) -> type[OddFileSystem]:
    fsspec.register_implementation("odd", OddFileSystem, clobber=True)
    monkeypatch.setattr(OddFileSystem, "store", {})
    _upload(OddFileSystem(), "/sql", make_adapter())
    return OddFileSystem


def _upload(filesystem: Any, root: str, folder: Path) -> None:
    for path in folder.iterdir():
        filesystem.pipe_file(f"{root}/{path.name}", path.read_bytes())


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _fetch(source: str, cache: Path, **options: Any) -> dict[str, bytes]:
    with fetched(source, cache, **options) as folder:
        assert not any(path.is_symlink() for path in folder.iterdir())
        return _contents(folder)


def test_a_folder_is_used_in_place(make_adapter: MakeAdapter, cache: Path) -> None:
    folder = make_adapter()
    for source in (str(folder), f"file://{folder}"):
        with fetched(source, cache) as found:
            assert found == folder
    assert not cache.exists()


def test_a_relative_folder_comes_before_a_hub_id(
    make_adapter: MakeAdapter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_adapter()
    monkeypatch.chdir(folder.parent.parent)
    with fetched(f"{folder.parent.name}/{folder.name}", cache) as found:
        assert found.samefile(folder)


@pytest.mark.parametrize(
    "source", ["/no/such/folder", "./no/such", "../no", "", "no-such-folder", "a/b/c", "a\x00b", "file:///no/such"]
)
def test_what_is_no_source(source: str, cache: Path) -> None:
    with pytest.raises(SourceError, match=r"is not a folder|there is no adapter_config.json"), fetched(source, cache):
        pass


def test_a_file_is_no_source(make_adapter: MakeAdapter, cache: Path) -> None:
    with pytest.raises(SourceError, match="is not a folder"), fetched(str(make_adapter() / WEIGHTS_FILE), cache):
        pass


def test_from_memory(make_adapter: MakeAdapter, cache: Path, memory: MemoryFileSystem) -> None:
    folder = make_adapter()
    (folder / "optimizer.pt").write_bytes(b"large")
    _upload(memory, "/sql", folder)
    expected = {name: (folder / name).read_bytes() for name in WANTED}
    assert _fetch("memory://sql", cache) == expected
    assert _fetch("memory://sql/", cache) == expected


def test_from_s3(make_adapter: MakeAdapter, cache: Path, s3_url: str) -> None:
    folder = make_adapter()
    filesystem, root = fsspec.url_to_fs(s3_url)
    _upload(filesystem, f"{root}/teams/sql", folder)
    with fetched(f"{s3_url}/teams/sql", cache) as found:
        assert _contents(found) == _contents(folder)
        assert read_manifest(found) == read_manifest(folder)
    with pytest.raises(SourceError, match=f"there is no {CONFIG_FILE} to be read under {s3_url}/teams/other"):
        _fetch(f"{s3_url}/teams/other", cache)


def test_a_new_version_of_a_file_is_fetched_again(make_adapter: MakeAdapter, cache: Path, s3_url: str) -> None:
    filesystem, root = fsspec.url_to_fs(s3_url)
    for seed in (1, 2):
        folder = make_adapter(seed=seed)
        _upload(filesystem, root, folder)
        assert _fetch(s3_url, cache) == _contents(folder)


def test_a_readme_that_is_gone_is_gone(make_adapter: MakeAdapter, cache: Path, memory: MemoryFileSystem) -> None:
    _upload(memory, "/sql", make_adapter())
    assert _fetch("memory://sql", cache).keys() == set(WANTED)
    memory.rm("/sql/README.md")
    assert _fetch("memory://sql", cache).keys() == {CONFIG_FILE, WEIGHTS_FILE}


@pytest.fixture
def http_source(hub: Any, make_adapter: MakeAdapter) -> str:
    hub.publish("org/sql", make_adapter())
    return f"{hub.url}/org/sql/resolve/main"


def _downloads(hub: Any, name: str) -> int:
    return sum(method == "GET" and path.endswith(name) for method, path in hub.requests)


def test_over_http(hub: Any, http_source: str, cache: Path) -> None:
    assert _fetch(http_source, cache) == hub.repos["org/sql"]
    with pytest.raises(SourceError, match="there is no adapter_config.json to be read"):
        _fetch(f"{hub.url}/org/other/resolve/main", cache)
    hub.gated.add("org/sql")
    with pytest.raises(SourceError, match="no adapter_config.json to be read under .*403"):
        _fetch(http_source, cache)


def test_an_interrupted_fetch_goes_on_with_what_it_has(hub: Any, http_source: str, cache: Path) -> None:
    weights = hub.repos["org/sql"].pop(WEIGHTS_FILE)
    with pytest.raises(SourceError, match=f"has no {WEIGHTS_FILE}"):
        _fetch(http_source, cache)
    first = _downloads(hub, CONFIG_FILE)
    hub.repos["org/sql"][WEIGHTS_FILE] = weights
    hub.requests.clear()
    assert _fetch(http_source, cache)[WEIGHTS_FILE] == weights
    assert first > 0
    assert _downloads(hub, CONFIG_FILE) == 0
    assert _downloads(hub, WEIGHTS_FILE) > 0


def test_two_at_once_fetch_once(hub: Any, http_source: str, cache: Path) -> None:
    results: list[dict[str, bytes]] = []
    barrier = threading.Barrier(4)

    def fetch() -> None:
        barrier.wait()
        results.append(_fetch(http_source, cache))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [hub.repos["org/sql"]] * 4
    assert _downloads(hub, WEIGHTS_FILE) == 1


def test_the_files_stay_as_they_are_while_they_are_used(
    make_adapter: MakeAdapter, cache: Path, memory: MemoryFileSystem
) -> None:
    first, second = make_adapter("first", seed=1), make_adapter("second", seed=2)
    _upload(memory, "/sql", first)
    with fetched("memory://sql", cache) as folder:
        _upload(memory, "/sql", second)
        other = threading.Thread(target=_fetch, args=("memory://sql", cache))
        other.start()
        other.join(0.2)
        assert _contents(folder) == _contents(first)
    other.join()
    assert _fetch("memory://sql", cache) == _contents(second)


def test_a_transfer_that_ends_early_is_refused(
    odd: type[OddFileSystem], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(odd, "said", {"size": 10**6})
        with pytest.raises(SourceError, match="bytes instead of 1000000: try again"):
            _fetch("odd://sql", cache)
    assert _fetch("odd://sql", cache).keys() == set(WANTED)


def test_a_source_that_may_not_be_read(odd: type[OddFileSystem], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odd, "forbidden", True)
    with pytest.raises(SourceError, match="may not be read with the credentials"):
        _fetch("odd://sql", cache)


@pytest.mark.parametrize("said", [{}, {"size": None}])
def test_more_than_the_limit_is_refused(
    odd: type[OddFileSystem], cache: Path, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the source does not tell how large it is."""
    monkeypatch.setattr(odd, "said", said)
    with pytest.raises(SourceError, match="larger than the 2000 bytes"):
        _fetch("odd://sql", cache, max_bytes=2000)


def test_a_missing_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SourceError, match=r"pip install 'loraloom\[s3\]'"):
        _fetch("s3://bucket/sql", cache)


def test_an_unknown_kind_of_url_is_refused(cache: Path) -> None:
    with pytest.raises(SourceError, match="nosuch"):
        _fetch("nosuch://bucket/sql", cache)


def test_what_nobody_fetched_for_a_day_is_removed(
    make_adapter: MakeAdapter, cache: Path, memory: MemoryFileSystem
) -> None:
    for name in ("old", "used", "new"):
        _upload(memory, f"/{name}", make_adapter())
    _fetch("memory://old", cache)
    (old,) = (path for path in cache.iterdir() if path.is_dir())
    with fetched("memory://used", cache) as used:
        for folder in (old, used.parent):
            os.utime(folder, (0, 0))
        _fetch("memory://new", cache)
        assert not old.exists()
        assert (used / WEIGHTS_FILE).exists()


def test_from_the_hub(hub: Any, make_adapter: MakeAdapter, cache: Path) -> None:
    folder = make_adapter()
    (folder / "optimizer.pt").write_bytes(b"large")
    hub.publish("org/sql", folder)
    expected = {name: (folder / name).read_bytes() for name in WANTED}
    for source in ("hf:org/sql", "org/sql", "hf:org/sql@main", f"org/sql@{hub.commit('org/sql')}"):
        assert _fetch(source, cache) == expected
    assert _downloads(hub, "optimizer.pt") == 0
    assert _downloads(hub, WEIGHTS_FILE) == 1


def test_from_the_hubs_cache_without_a_network(
    hub: Any, make_adapter: MakeAdapter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("org/sql", make_adapter())
    expected = _fetch("org/sql", cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _fetch("org/sql", cache) == expected
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE"):
        _fetch("org/other", cache)


def test_what_the_hub_refuses(hub: Any, make_adapter: MakeAdapter, cache: Path) -> None:
    hub.publish("org/sql", make_adapter())
    with pytest.raises(SourceError, match="there is no folder 'org/other', nor such an id"):
        _fetch("org/other", cache)
    with pytest.raises(SourceError, match="no such revision"):
        _fetch("org/sql@v2", cache)
    with pytest.raises(SourceError, match="neither a folder nor an id"):
        _fetch("hf:a/b/c", cache)
    with pytest.raises(SourceError, match="larger than the 1000 bytes"):
        _fetch("org/sql", cache, max_bytes=1000)
    hub.gated.add("org/sql")
    with pytest.raises(SourceError, match="gated"):
        _fetch("org/sql", cache)


def test_a_pickle_on_the_hub_is_not_fetched(hub: Any, make_adapter: MakeAdapter, cache: Path) -> None:
    hub.publish("org/sql", make_adapter())
    hub.repos["org/sql"]["adapter_model.bin"] = hub.repos["org/sql"].pop(WEIGHTS_FILE)
    with pytest.raises(SourceError, match="only safetensors are read"):
        _fetch("org/sql", cache)
    assert _downloads(hub, "adapter_model.bin") == 0
