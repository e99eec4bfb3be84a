"""A writer that dies, or whose disk fails, at any of its filesystem calls leaves the old state or the new one whole."""

import errno
import itertools
import multiprocessing
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from loraloom.adapters.errors import StoreError
from loraloom.adapters.names import Adapter, Tag
from loraloom.adapters.store import Store
from loraloom.adapters.store.audit import AuditLog
from loraloom.adapters.store.auditor import Auditor
from loraloom.adapters.store.blobs import LocalBlobs
from loraloom.adapters.store.disk import Disk
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.watched_disk import DIED, DyingDisk, FailingDisk, NotingDisk, UnsyncedDisk

Given = list[Path]
State = dict[str, Any]
Operation = Callable[[Store, Given], None]


def open_with(disk: Disk, root: Path) -> Store:
    objects = LocalObjects(root, disk)
    objects.begin()
    return Store(objects, LocalBlobs(objects))


def nothing(store: Store, given: Given) -> None:
    pass


def two_versions(store: Store, given: Given) -> None:
    store.publish(given[0], "sql", tag="stable")
    store.publish(given[1], "sql")


def moved_tags(store: Store, given: Given) -> None:
    two_versions(store, given)
    store.tag("sql", "stable", 2)


def add(store: Store, given: Given) -> None:
    store.publish(given[2], "sql", tag="stable")


def add_again(store: Store, given: Given) -> None:
    store.publish(given[1], "sql", tag="stable")


def tag(store: Store, given: Given) -> None:
    store.tag("sql", "stable", 2)


def rollback(store: Store, given: Given) -> None:
    store.rollback("sql", "stable")


def remove(store: Store, given: Given) -> None:
    store.remove("sql", 2)


def remove_all(store: Store, given: Given) -> None:
    store.remove("sql")


def pinned(store: Store, given: Given) -> None:
    two_versions(store, given)
    store.pin(Adapter("sql"))


def pin(store: Store, given: Given) -> None:
    store.pin(Adapter("sql", Tag("stable")))


def unpin(store: Store, given: Given) -> None:
    store.unpin(Adapter("sql"))


OPERATIONS = [
    (nothing, add),
    (two_versions, add),
    (two_versions, add_again),
    (two_versions, tag),
    (moved_tags, rollback),
    (moved_tags, remove),
    (moved_tags, remove_all),
    (two_versions, pin),
    (pinned, pin),
    (pinned, unpin),
    (pinned, remove_all),
]
REPEATABLE = (add, add_again, tag, pin, unpin)
"""The operations that change nothing when they are done already."""

each_operation = pytest.mark.parametrize(("before", "operation"), OPERATIONS, ids=lambda function: function.__name__)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads would wait for each other far longer than such small matrices take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(3)]


@pytest.fixture
def old(tmp_path: Path, given: Given, before: Operation) -> Path:
    before(open_with(UnsyncedDisk(), tmp_path / "old"), given)
    if before is nothing:
        shutil.rmtree(tmp_path / "old")
        (tmp_path / "old").mkdir()
    return tmp_path / "old"


def state_of(root: Path) -> State:
    """All that people can see of a store; what it refers to is whole, and the rest is garbage at most.

    Of the audit log, an entry at most is missing.
    """
    store = Store.open(root)
    assert {finding.kind for finding in store.verify()} <= {"garbage"}
    objects = LocalObjects(root)
    assert {finding.kind for finding in Auditor(objects, AuditLog(objects), grace=0).check().findings} <= {"unaudited"}
    for name in store.names():
        for version in store.versions(name):
            store.check(version.digest)
    return {
        name: {
            "versions": [(version.number, version.digest, version.original) for version in store.versions(name)],
            "tags": store.tags(name),
            "pins": store.pins_of(name),
            "moves": {tag: [move.version for move in store.tag_history(name, tag)] for tag in store.tags(name)},
        }
        for name in store.names()
    }


def state_after(operation: Operation, old: Path, given: Given, copy: Path) -> State:
    shutil.copytree(old, copy)
    operation(open_with(UnsyncedDisk(), copy), given)
    return state_of(copy)


def copies(old: Path) -> Iterator[tuple[int, Path]]:
    """A fresh copy of the old store for each point, without end."""
    for point in itertools.count():
        root = old.parent / f"point{point:03d}"
        shutil.copytree(old, root)
        yield point, root


def clean_processes() -> ForkServerContext:
    """Processes without threads, which may fork; they have imported what their children need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pytest", "safetensors.numpy", "loraloom.adapters.store.store"])
    return context


def die_everywhere(operation: Operation, old: Path, given: Given, moment: str) -> None:
    """Let a child die at each point, one after the other, and leave the store of each behind."""
    for point, root in copies(old):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            operation(open_with(DyingDisk(point, moment), root), given)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != DIED:
            shutil.rmtree(root)
            sys.exit(status)


@pytest.mark.parametrize("moment", ["before", "within"])
@each_operation
def test_death_at_any_call_leaves_the_old_or_the_new_state(
    old: Path, given: Given, operation: Operation, moment: str
) -> None:
    """(After one call is before the next.)"""
    states = [state_of(old), state_after(operation, old, given, old.parent / "new")]
    process = clean_processes().Process(target=die_everywhere, args=(operation, old, given, moment))
    process.start()
    process.join()
    assert process.exitcode == 0
    seen = []
    for root in sorted(old.parent.glob("point*")):
        seen.append(states.index(state_of(root)))
        if seen[-1] == 0 or operation in REPEATABLE:
            operation(open_with(UnsyncedDisk(), root), given)
            assert state_of(root) == states[1]
    assert seen == sorted(seen)
    # Within the last write of all, that of the audit entry, the change has been made.
    assert set(seen) == {0, 1}


@each_operation
def test_a_disk_that_fails_at_any_call_leaves_the_old_or_the_new_state(
    old: Path, given: Given, operation: Operation
) -> None:
    states = [state_of(old), state_after(operation, old, given, old.parent / "new")]
    seen = []
    for point, root in copies(old):
        disk = FailingDisk(point, errno.ENOSPC)
        try:
            operation(open_with(disk, root), given)
        except StoreError:
            seen.append(states.index(state_of(root)))
        else:
            # Only left-overs could not be removed, if anything.
            seen.append(1)
            assert state_of(root) == states[1]
        if disk.left >= 0:
            break
        if seen[-1] == 0 or operation in REPEATABLE:
            operation(open_with(UnsyncedDisk(), root), given)
            assert state_of(root) == states[1]
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}


def add_with_little_room(root: Path, given: Given) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        add(Store.open(root), given)
    except StoreError:
        sys.exit(DIED)


def test_a_file_that_the_system_cuts_short_is_told(tmp_path: Path, given: Given) -> None:
    process = clean_processes().Process(target=add_with_little_room, args=(tmp_path / "store", given))
    process.start()
    process.join()
    assert process.exitcode == DIED
    assert state_of(tmp_path / "store") == {}
    assert list((tmp_path / "store/stage").iterdir()) == []


@each_operation
def test_each_object_is_written_synced_linked_and_its_folder_synced(
    old: Path, given: Given, operation: Operation
) -> None:
    disk = NotingDisk()
    operation(open_with(disk, old), given)
    writes = disk.writes()
    links = [index for index, (call, _) in enumerate(writes) if call == "link"]
    assert links
    for index in links:
        target = writes[index][1]
        calls = [call for call, _ in writes[:index]]
        synced = len(calls) - 1 - calls[::-1].index("fsync")
        source = writes[synced][1]
        assert any(path == source for call, path in writes[:synced] if call in ("write", "copy", "chmod"))
        assert not any(path == source for call, path in writes[synced + 1 : index])
        assert writes[index + 1] == ("fsync_folder", target.parent)


@each_operation
def test_each_new_folder_is_synced_in_its_parent_before_anything_is_in_it(
    old: Path, given: Given, operation: Operation
) -> None:
    disk = NotingDisk()
    operation(open_with(disk, old), given)
    writes = disk.writes()
    for index, (call, path) in enumerate(writes):
        if call == "mkdir" and "stage" not in path.relative_to(old).parts:
            assert writes[index + 1] == ("fsync_folder", path.parent)


def one_removed(store: Store, given: Given) -> None:
    two_versions(store, given)
    store.remove("sql", 2)


def collect(store: Store, given: Given) -> None:
    list(store.collect())


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("before", [one_removed])
def test_a_collection_that_dies_at_any_call_can_be_ended_or_undone(old: Path, given: Given, moment: str) -> None:
    states = [state_of(old), state_after(publish_the_second, old, given, old.parent / "new")]
    process = clean_processes().Process(target=die_everywhere, args=(collect, old, given, moment))
    process.start()
    process.join()
    assert process.exitcode == 0
    points = sorted(old.parent.glob("point*"))
    # Five files in two folders, one more for what was measured, and the folders themselves.
    assert len(points) == 9
    for root in points:
        assert state_of(root) == states[0]
        again = old.parent / f"again-{root.name}"
        shutil.copytree(root, again)
        publish_the_second(Store.open(again), given)
        assert state_of(again) == states[1]
        assert Store.open(again).verify() == []
        collect(Store.open(root), given)
        assert state_of(root) == states[0]
        assert Store.open(root).verify() == []


def publish_the_second(store: Store, given: Given) -> None:
    store.publish(given[1], "sql")


@pytest.mark.parametrize("before", [one_removed])
def test_a_collection_whose_disk_fails_is_told_and_can_be_ended(old: Path, given: Given) -> None:
    expected = state_of(old)
    for point, root in copies(old):
        disk = FailingDisk(point, errno.EIO)
        try:
            collect(open_with(disk, root), given)
        except StoreError:
            assert state_of(root) == expected
        collect(Store.open(root), given)
        assert Store.open(root).verify() == []
        if disk.left >= 0:
            break
    assert point == 9


def test_a_version_is_committed_by_its_last_link(tmp_path: Path, given: Given) -> None:
    disk = NotingDisk()
    open_with(disk, tmp_path / "store").publish(given[0], "sql", tag="stable")
    links = [path.relative_to(tmp_path / "store").parts for call, path in disk.writes() if call == "link"]
    *earlier, last, entry = links
    assert last == ("names", "sql", "versions", "000001.json")
    assert entry == ("audit", "000001.json")
    assert [path for path in earlier if path[0] == "names"] == [
        ("names", "sql", "tags", "latest", "000001.json"),
        ("names", "sql", "tags", "stable", "000001.json"),
    ]
