"""Folders in which files are made, and how they are measured and removed."""

import os
import time
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store.disk import Disk
from loraloom.adapters.store.stage import ABANDONED_S, is_abandoned, remove_tree, size_of, staged


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of folders with 7 bytes, and a link to what lies outside."""
    (tmp_path / "tree/deep/empty").mkdir(parents=True)
    (tmp_path / "tree/three").write_bytes(b"123")
    (tmp_path / "tree/deep/four").write_bytes(b"1234")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"stays")
    (tmp_path / "tree/deep/link").symlink_to(tmp_path / "outside")
    return tmp_path / "tree"


def test_a_tree_is_removed_and_nothing_that_it_links_to(tree: Path, tmp_path: Path) -> None:
    remove_tree(tree, Disk())
    remove_tree(tree, Disk())
    assert os.listdir(tmp_path) == ["outside"]
    assert (tmp_path / "outside/file").read_bytes() == b"stays"


def test_sizes(tree: Path, tmp_path: Path) -> None:
    (tree / "deep/link").unlink()
    assert (size_of(tree), size_of(tree / "three"), size_of(tmp_path / "none")) == (7, 3, 0)


def test_a_stage_is_abandoned_after_a_day(tree: Path, tmp_path: Path) -> None:
    for age, abandoned in ((ABANDONED_S - 60, False), (ABANDONED_S + 60, True)):
        os.utime(tree, (time.time() - age,) * 2)
        assert is_abandoned(tree) is abandoned
    assert not is_abandoned(tmp_path / "none")


def test_failures_in_a_stage_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the place"), staged(tmp_path, Disk(), "the place"):
        raise OSError("no room")
    assert os.listdir(tmp_path) == []
