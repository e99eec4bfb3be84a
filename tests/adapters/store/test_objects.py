"""Objects in a folder: created once, whole, and told in plain words when they cannot be."""

import errno
import os
import threading
from pathlib import Path

import pytest

from loraloom.adapters.errors import InvalidAdapter, StoreError
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.store.watched_disk import FailingDisk, NotingDisk, UnsyncedDisk


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path)


def test_an_object_is_created_once(objects: LocalObjects, tmp_path: Path) -> None:
    assert objects.create("a/b/c.json", b"first")
    assert not objects.create("a/b/c.json", b"second")
    assert objects.read("a/b/c.json") == b"first"
    assert (tmp_path / "a/b/c.json").stat().st_mode & 0o777 == 0o444
    assert objects.list("stage") == []


def test_what_is_not_there(objects: LocalObjects) -> None:
    assert objects.read("a/b") is None
    assert objects.sha256("a/b") is None
    assert objects.list("a") == []


def test_a_file_is_created_once_and_replaced_whole(objects: LocalObjects, tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / content).write_text(content)
    assert objects.create_file("a/b", tmp_path / "one")
    assert not objects.create_file("a/b", tmp_path / "two")
    held = (tmp_path / "a/b").open()
    objects.replace_file("a/b", tmp_path / "two")
    assert objects.read("a/b") == b"two"
    assert held.read() == "one"
    held.close()


def test_of_many_creators_one_succeeds(tmp_path: Path) -> None:
    outcomes: list[tuple[bool, int]] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        for turn in range(20):
            outcomes.append((LocalObjects(tmp_path, UnsyncedDisk()).create(f"a/{turn}", str(number).encode()), turn))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turn for created, turn in outcomes if created) == list(range(20))
    assert len(outcomes) == 160


class ForgetfulServer(UnsyncedDisk):
    """As NFS does after it lost an answer: it repeats the call and then finds its own link."""

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        super().link(source, target)


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path) -> None:
    assert LocalObjects(tmp_path, ForgetfulServer()).create("a", b"x")
    assert not LocalObjects(tmp_path, ForgetfulServer()).create("a", b"y")


def test_folders_are_made_durable_once_a_process(tmp_path: Path) -> None:
    disk = NotingDisk()
    objects = LocalObjects(tmp_path, disk)
    for number in range(3):
        objects.create(f"a/b/{number}", b"")
    assert [call for call in disk.writes() if call == ("fsync_folder", tmp_path)] == [("fsync_folder", tmp_path)]
    assert [call for call in disk.writes() if call == ("mkdir", tmp_path / "a/b")] == [("mkdir", tmp_path / "a/b")]
    assert disk.writes().count(("fsync_folder", tmp_path / "a/b")) == 3


def test_a_folder_that_another_made_is_made_durable_too(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    disk = NotingDisk()
    LocalObjects(tmp_path, disk).create("a/b/c", b"")
    assert ("fsync_folder", tmp_path) in disk.writes()
    assert ("fsync_folder", tmp_path / "a") in disk.writes()


def test_the_folder_of_a_store_is_made_durable_with_its_parents(tmp_path: Path) -> None:
    disk = NotingDisk()
    LocalObjects(tmp_path / "x/y", disk).begin()
    assert disk.writes() == [
        ("mkdir", tmp_path / "x"),
        ("fsync_folder", tmp_path),
        ("mkdir", tmp_path / "x/y"),
        ("fsync_folder", tmp_path / "x"),
    ]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "right to read and write"),
        (errno.EPERM, "hard links"),
        (errno.ENOENT, "is gone"),
        (errno.EIO, "cannot be used"),
    ],
)
def test_a_failing_disk_is_told_with_what_to_do(tmp_path: Path, error: int, advice: str) -> None:
    with pytest.raises(StoreError, match=advice) as caught:
        LocalObjects(tmp_path, FailingDisk(0, error)).create("a", b"x")
    assert str(tmp_path) in str(caught.value)
    assert LocalObjects(tmp_path).read("a") is None


def test_a_store_that_vanishes_is_told_and_may_come_back(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "store")
    objects.begin()
    objects.create("a/b/1", b"x")
    os.rename(tmp_path / "store", tmp_path / "away")
    for call in (objects.check, lambda: objects.create("a/b/2", b"y")):
        with pytest.raises(StoreError, match="is gone"):
            call()
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreError, match="is gone"):
        objects.create("a/b/2", b"y")
    assert objects.create("a/b/2", b"y")


def test_a_file_in_place_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError):
        LocalObjects(tmp_path / "store").check()
    for call in (lambda objects: objects.list("names"), lambda objects: objects.read("names/a")):
        with pytest.raises(StoreError, match="not a folder"):
            call(LocalObjects(tmp_path / "store"))


def test_a_stage_leaves_nothing_behind(objects: LocalObjects, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with objects.staged() as stage:
        copy = stage.copy(tmp_path / "file", stage.subfolder("given").name + "/copy")
        assert copy.read_text() == "x"
    assert not copy.exists()
    assert objects.list("stage") == []


def test_a_stage_refuses_links(objects: LocalObjects, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with objects.staged() as stage, pytest.raises(InvalidAdapter, match="symbolic link"):
        stage.copy(tmp_path / "link", "copy")
    assert objects.list("stage") == []
