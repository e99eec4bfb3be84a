"""Many processes that write to one name at once, and a look-up that does not care how many names there are."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.adapters.errors import AdapterNotFound
from loraloom.adapters.names import Adapter, Tag
from loraloom.adapters.store import Store
from loraloom.adapters.store.blobs import LocalBlobs
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.watched_disk import NotingDisk

PROCESSES = 8
TURNS = 4


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


def spell_differently(start: Barrier, root: Path, name: str, folder: Path) -> None:
    store = Store.open(root)
    start.wait()
    store.publish(folder, name)


def run_at_once(target: Callable[..., None], arguments: list[tuple[Any, ...]]) -> list[int | None]:
    """Run the function in a process for each tuple of arguments; returns their exit statuses."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pytest", "safetensors.numpy", "loraloom.adapters.store.store"])
    start = context.Barrier(len(arguments))
    processes = [context.Process(target=_alone, args=(target, start, *each)) for each in arguments]
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
