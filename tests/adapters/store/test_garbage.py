"""What is removed, what stays, and who may be at work meanwhile."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError, VersionNotFound
from loraloom.adapters.names import Adapter
from loraloom.adapters.normal import digest_of
from loraloom.adapters.store import Store
from loraloom.adapters.store.locks import Locks
from loraloom.adapters.store.objects import LocalObjects, Objects
from loraloom.adapters.store.remote import RemoteObjects
from loraloom.adapters.store.stage import ABANDONED_S
from tests.adapters.small_adapters import small_adapter

OpenStore = Callable[[], Store]
OpenObjects = Callable[[], Objects]


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    urls = {
        "folder": lambda: str(tmp_path / "store"),
        "memory": lambda: f"memory://{tmp_path.name}",
        "s3": lambda: f"{request.getfixturevalue('s3_url')}/some/prefix",
    }
    return str(urls[request.param]())


@pytest.fixture
def open_store(url: str, tmp_path: Path) -> OpenStore:
    """Opens one and the same store anew, as another process would, with a cache of its own."""
    numbers = iter(range(1000))
    return lambda: Store.open(url, cache=tmp_path / f"cache{next(numbers)}")


@pytest.fixture
def objects(url: str, tmp_path: Path) -> Objects:
    """What the store is made of."""
    return RemoteObjects(url, tmp_path / "cache", refresh=0) if "://" in url else LocalObjects(Path(url))


@pytest.fixture
def given(tmp_path: Path) -> list[Path]:
    return [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(3)]


def collected(store: Store, dry_run: bool = False) -> set[str]:
    return {each.path for each in store.collect(dry_run=dry_run)}


def test_nothing_is_garbage_in_a_new_store(open_store: OpenStore) -> None:
    assert collected(open_store()) == set()


def test_what_removed_versions_named_is_removed(open_store: OpenStore, objects: Objects, given: list[Path]) -> None:
    store = open_store()
    kept, gone = (store.publish(folder, "sql").version for folder in given[:2])
    store.tag("sql", "stable", 2)
    store.remove("sql", 2)
    expected = {f"blobs/{gone.digest}", f"originals/{gone.original}", f"facts/{gone.digest}"}
    assert collected(open_store(), dry_run=True) == expected
    assert {finding.path for finding in open_store().verify()} == expected
    sizes = {each.path: each.size for each in open_store().collect()}
    assert sizes.keys() == expected
    original = sum(path.stat().st_size for path in given[1].iterdir())
    assert sizes[f"originals/{gone.original}"] == original
    assert min(sizes.values()) > 0
    for path in expected:
        objects.refresh(path)
        assert objects.list(path) == []
    assert open_store().verify() == []
    assert collected(open_store()) == set()
    assert open_store().versions("sql") == [kept]
    assert digest_of(open_store().folder(kept.digest)) == kept.digest
    assert store.facts(kept.digest).keys() == {"update"}


def test_the_history_outlives_what_it_names(open_store: OpenStore, given: list[Path]) -> None:
    store = open_store()
    for folder in given:
        store.publish(folder, "sql", tag="stable")
    store.remove("sql", 2)
    assert len(collected(store)) == 3
    assert [move.version for move in open_store().tag_history("sql", "stable")] == [1, 2, 3]
    assert open_store().rollback("sql", "stable").version == 1
    with pytest.raises(VersionNotFound):
        open_store().rollback("sql", "stable")
    again = open_store().publish(given[1], "sql")
    assert (again.created, again.version.number) == (True, 4)
    assert digest_of(open_store().folder(again.version.digest)) == again.version.digest


def test_what_another_name_needs_stays(open_store: OpenStore, given: list[Path]) -> None:
    store = open_store()
    version = store.publish(given[0], "sql").version
    (given[0] / "README.md").write_text("Other words about the same adapter.")
    other = store.publish(given[0], "other").version
    store.remove("sql")
    assert collected(store) == {f"originals/{version.original}"}
    assert open_store().verify() == []
    store.remove("other")
    assert collected(store) == {f"{kind}/{other.digest}" for kind in ("blobs", "facts")} | {
        f"originals/{other.original}"
    }


def test_an_original_that_is_a_normal_form_too(open_store: OpenStore, given: list[Path]) -> None:
    store = open_store()
    first = store.publish(given[0], "sql").version
    with store.leased(first.digest) as folder:
        second = store.publish(folder, "again").version
    assert second.original == second.digest == first.digest
    store.remove("again")
    assert collected(store) == {f"originals/{first.digest}"}
    store.remove("sql")
    assert collected(store) == {f"blobs/{first.digest}", f"facts/{first.digest}", f"originals/{first.original}"}


def test_what_is_being_published_stays(open_store: OpenStore, objects: Objects, given: list[Path]) -> None:
    store = open_store()
    version = store.publish(given[0], "sql").version
    store.remove("sql")
    with objects.kept((version.digest, version.original)):
        assert collected(open_store()) == set()
    assert len(collected(open_store())) == 3


def test_a_publisher_that_comes_while_it_is_removed_makes_it_anew(
    open_store: OpenStore, objects: Objects, given: list[Path]
) -> None:
    store = open_store()
    version = store.publish(given[0], "sql").version
    store.remove("sql")
    publisher = threading.Thread(target=store.publish, args=(given[0], "again"))
    with objects.removable((version.digest, version.original)) as free:
        assert free == {version.digest, version.original}
        publisher.start()
        publisher.join(0.3)
        for kind, digest in (("blobs", version.digest), ("originals", version.original)):
            objects.remove(f"{kind}/{digest}")
    publisher.join()
    assert open_store().verify() == []
    assert open_store().resolve(Adapter("again")).digest == version.digest


def test_one_process_publishes_again_what_another_has_removed(open_store: OpenStore, given: list[Path]) -> None:
    store = open_store()
    version = store.publish(given[0], "sql").version
    store.remove("sql")
    assert len(collected(open_store())) == 3
    assert store.publish(given[0], "sql").version.digest == version.digest
    assert open_store().verify() == []


@pytest.mark.parametrize("gone", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_part_of_a_bundle_is_completed_or_removed(
    open_store: OpenStore, objects: Objects, given: list[Path], gone: str
) -> None:
    store = open_store()
    version = store.publish(given[0], "sql").version
    store.remove("sql")
    objects.remove(f"blobs/{version.digest}/{gone}")
    assert f"blobs/{version.digest}" in collected(open_store(), dry_run=True)
    store.publish(given[0], "sql")
    assert open_store().verify() == []
    store.remove("sql")
    objects.remove(f"blobs/{version.digest}/{gone}")
    assert f"blobs/{version.digest}" in collected(open_store())
    assert open_store().verify() == []


def test_nothing_is_removed_while_a_record_is_damaged(
    open_store: OpenStore, objects: Objects, given: list[Path]
) -> None:
    store = open_store()
    store.publish(given[0], "date")
    version = store.publish(given[1], "sql").version
    store.remove("sql")
    objects.remove("names/date/versions/000001.json")
    objects.create("names/date/versions/000001.json", b"{")
    with pytest.raises(StoreError, match="names/date/versions/000001.json"):
        collected(open_store())
    assert objects.list(f"blobs/{version.digest}")


def test_facts_of_nothing_are_removed(open_store: OpenStore) -> None:
    store = open_store()
    assert store.note_fact("f" * 64, "effect", {"tokens": 1})
    assert collected(open_store()) == {f"facts/{'f' * 64}"}
    assert store.facts("f" * 64) == {}


def test_a_lease_outlives_a_removal(open_store: OpenStore, given: list[Path]) -> None:
    store, server = open_store(), open_store()
    version = store.publish(given[0], "sql").version
    with server.leased(version.digest) as folder:
        store.remove("sql")
        freed = collected(open_store())
        assert (f"blobs/{version.digest}" in freed) is not store.local
        assert digest_of(folder) == version.digest
    collected(open_store())
    assert open_store().verify() == []


def test_stages_go_when_their_writers_are_dead(tmp_path: Path, given: list[Path]) -> None:
    root = tmp_path / "store"
    store = Store.open(root)
    store.publish(given[0], "sql")
    for name in ("old", "young"):
        (root / "stage" / name / "normal").mkdir(parents=True)
        (root / "stage" / name / "normal/adapter_config.json").write_bytes(b"123")
    (root / "stage/file").write_bytes(b"12345")
    past = time.time() - ABANDONED_S - 60
    for name in ("old", "file"):
        os.utime(root / "stage" / name, (past, past))
    assert {(each.path, each.size) for each in store.collect()} == {("stage/old", 3), ("stage/file", 5)}
    assert os.listdir(root / "stage") == ["young"]


def test_lock_files_go_with_what_they_are_for(tmp_path: Path, given: list[Path]) -> None:
    root = tmp_path / "store"
    store = Store.open(root)
    kept = store.publish(given[0], "sql").version
    store.publish(given[1], "date")
    store.remove("date")
    (root / "locks" / ("0" * 64)).touch()  # of a collection that was killed just before its end
    collected(store)
    assert {path.name for path in (root / "locks").iterdir()} == {kept.digest, kept.original}


def test_what_others_hold_stays_and_the_rest_goes(tmp_path: Path, given: list[Path]) -> None:
    root = tmp_path / "store"
    store = Store.open(root)
    first, second = (store.publish(folder, "sql").version for folder in given[:2])
    store.remove("sql")
    with Locks(root).kept((first.digest,)):
        assert collected(store) == {f"originals/{first.original}"} | {
            f"originals/{second.original}",
            f"blobs/{second.digest}",
            f"facts/{second.digest}",
        }
    assert collected(store) == {f"blobs/{first.digest}", f"facts/{first.digest}"}


def test_more_than_is_done_at_once(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = Store.open(root)
    for number in range(150):
        (root / "facts" / f"{number:064d}").mkdir(parents=True)
    assert len(collected(store)) == 150
    assert list((root / "facts").iterdir()) == []


def test_the_holds_of_dead_processes_are_removed(tmp_path: Path) -> None:
    objects = RemoteObjects(f"memory://{tmp_path.name}", tmp_path / "cache")
    dead = f"holds/{'1' * 64}/claim-1000000000-0123"
    objects.create(dead, b"{}")
    objects.create(alive := f"holds/{'1' * 64}/claim-{time.time():.0f}-4567", b"{}")
    store = Store.open(f"memory://{tmp_path.name}", cache=tmp_path / "other")
    assert collected(store) == {dead}
    assert objects.read(dead) is None
    assert json.loads(objects.read(alive) or b"") == {}
