"""Many processes that write to one name at once, and a look-up that does not care how many names there are."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.adapters.errors import AdapterNotFound, DamagedBlob
from loraloom.adapters.names import Adapter, Tag
from loraloom.adapters.normal import digest_of
from loraloom.adapters.store import Store
from loraloom.adapters.store.blobs import LocalBlobs
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.watched_disk import NotingDisk

PROCESSES = 8
TURNS = 4
MANY = 100_000
PATIENCE = 300.0
"""Seconds that the processes wait for one another: it ends the test if one of them does not come."""


def add_and_tag(start: Barrier, root: Path, given: list[Path]) -> None:
    store = Store.open(root)
    start.wait()
    for folder in given:
        version = store.publish(folder, "sql", tag="mine").version
        store.tag("sql", "moved", version.number)
        assert store.resolve(Adapter("sql", version.number)) == version


def add_the_same(start: Barrier, root: Path, given: list[Path]) -> None:
    store = Store.open(root)
    start.wait()
    for number, folder in enumerate(given):
        store.publish(folder, f"same{number}", tag="stable")


def publish_and_remove(start: Barrier, root: Path, name: str, given: list[Path]) -> None:
    """Content that others publish and remove too, and that is garbage in between."""
    store = Store.open(root)
    start.wait()
    for turn in range(TURNS * len(given)):
        store.publish(given[turn % len(given)], name)
        if turn % 2:
            store.remove(name)


def collect_again_and_again(start: Barrier, root: Path, ended: list[Path]) -> None:
    """Until all publishers have ended, and once more."""
    store = Store.open(root)
    start.wait()
    for _ in range(MANY):
        if all(path.exists() for path in ended):
            break
        list(store.collect())
    list(store.collect())


def lease_again_and_again(start: Barrier, root: Path, names: list[str], ended: list[Path]) -> None:
    """What is live when the lease begins stays whole until it ends, also when it is removed meanwhile."""
    store = Store.open(root)
    start.wait()
    for turn in range(MANY):
        if all(path.exists() for path in ended):
            break
        lease_one(store, names[turn % len(names)])


def lease_one(store: Store, name: str) -> None:
    try:
        record = store.resolve(Adapter(name))
        with store.leased(record.digest) as folder:
            assert digest_of(folder) == record.digest
    except AdapterNotFound:
        return
    except DamagedBlob:
        with pytest.raises(AdapterNotFound):
            store.resolve(Adapter(name, record.number))


def and_tell(start: Barrier, target: Callable[..., None], ended: Path, *arguments: Any) -> None:
    try:
        target(start, *arguments)
    finally:
        ended.touch()


def spell_differently(start: Barrier, root: Path, name: str, folder: Path) -> None:
    store = Store.open(root)
    start.wait()
    store.publish(folder, name)


def run_at_once(target: Callable[..., None], arguments: list[tuple[Any, ...]]) -> list[int | None]:
    """Run the function in a process for each tuple of arguments; returns their exit statuses."""
    return run_different([(target, *each) for each in arguments])


def run_different(calls: list[tuple[Any, ...]]) -> list[int | None]:
    """Run each function with its arguments in a process; returns their exit statuses."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pytest", "safetensors.numpy", "loraloom.adapters.store.store"])
    start = context.Barrier(len(calls), timeout=PATIENCE)
    processes = [context.Process(target=_alone, args=(target, start, *each)) for target, *each in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _alone(target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    target(*arguments)


def test_eight_processes_add_and_tag_one_name(tmp_path: Path) -> None:
    seeds = range(PROCESSES * TURNS)
    given = [small_adapter(tmp_path / f"given{seed}", seed) for seed in seeds]
    each = [(tmp_path / "store", given[number::PROCESSES]) for number in range(PROCESSES)]
    assert run_at_once(add_and_tag, each) == [0] * PROCESSES

    store = Store.open(tmp_path / "store")
    versions = store.versions("sql")
    assert [version.number for version in versions] == [seed + 1 for seed in seeds]
    assert len({version.digest for version in versions}) == len(seeds)
    for tag in ("latest", "mine"):
        assert [move.version for move in store.tag_history("sql", tag)] == [version.number for version in versions]
    moves = [move.version for move in store.tag_history("sql", "moved")]
    assert sorted(moves) == [version.number for version in versions]
    assert store.tags("sql") == {"latest": len(seeds), "mine": len(seeds), "moved": moves[-1]}
    assert {finding.kind for finding in store.verify()} <= {"garbage"}
    assert not list((tmp_path / "store/stage").iterdir())


def test_eight_processes_add_the_same_content(tmp_path: Path) -> None:
    given = [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(TURNS)]
    assert run_at_once(add_the_same, [(tmp_path / "store", given)] * PROCESSES) == [0] * PROCESSES
    store = Store.open(tmp_path / "store")
    for name in store.names():
        assert [version.number for version in store.versions(name)] == [1]
        assert [move.version for move in store.tag_history(name, "latest")] == [1]
        assert [move.version for move in store.tag_history(name, "stable")] == [1]
    assert len(store.names()) == TURNS


def test_publishers_collectors_and_servers_at_once(tmp_path: Path) -> None:
    root, names = tmp_path / "store", ["date", "sql", "tag"]
    given = [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(2)]
    Store.open(root).publish(given[0], "kept")
    ended = [tmp_path / f"ended{number}" for number in range(len(names))]
    publishers = [
        (and_tell, publish_and_remove, end, root, name, given) for end, name in zip(ended, names, strict=True)
    ]
    collectors = [(collect_again_and_again, root, ended)] * 2
    servers = [(lease_again_and_again, root, [*names, "kept"], ended)] * 2
    assert run_different(publishers + collectors + servers) == [0] * 7

    store = Store.open(root)
    list(store.collect())
    assert store.names() == ["kept"]
    assert store.verify() == []
    assert [path.name for path in (root / "blobs").iterdir()] == [store.resolve(Adapter("kept")).digest]


def test_of_two_spellings_one_wins(tmp_path: Path) -> None:
    names = ["sql", "Sql", "SQL", "sQl"]
    each = [(tmp_path / "store", name, small_adapter(tmp_path / name, seed)) for seed, name in enumerate(names)]
    assert sorted(run_at_once(spell_differently, each), key=str) == [0, 1, 1, 1]
    assert len(Store.open(tmp_path / "store").names()) == 1


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A store with one adapter and the folders of 10,000 other names."""
    root = tmp_path / "store"
    Store.open(root).publish(small_adapter(tmp_path / "given"), "name07000", tag="stable")
    for number in range(10_000):
        (root / f"names/name{number:05d}").mkdir(exist_ok=True)
    return root


def test_a_look_up_reads_nothing_of_other_names(crowded: Path) -> None:
    disk = NotingDisk()
    objects = LocalObjects(crowded, disk)
    store = Store(objects, LocalBlobs(objects))
    for adapter in (Adapter("name07000"), Adapter("name07000", Tag("stable")), Adapter("name07000", 1)):
        assert store.resolve(adapter).name == "name07000"
    assert all(crowded / "names/name07000" in path.parents for _, path in disk.calls)
    disk.calls.clear()
    store.resolve(Adapter("name07000", Tag("stable")))
    assert sorted(call for call, _ in disk.calls) == ["list"] * 3


def test_a_miss_reads_the_nearest_names_only(crowded: Path) -> None:
    disk = NotingDisk()
    objects = LocalObjects(crowded, disk)
    with pytest.raises(AdapterNotFound) as caught:
        Store(objects, LocalBlobs(objects)).resolve(Adapter("name7000"))
    assert caught.value.nearest == ("name07000",)
    assert len(disk.calls) < 40
