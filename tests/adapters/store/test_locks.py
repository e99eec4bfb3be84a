"""Who relies on a digest, and who may remove it."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store.flock import unlock
from loraloom.adapters.store.locks import Locks

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for digest in (ONE, TWO):
        (tmp_path / "blobs" / digest).mkdir(parents=True)
    return tmp_path


def test_what_is_kept_or_shared_cannot_be_removed(root: Path) -> None:
    locks = Locks(root)
    with locks.kept((ONE, ONE)), locks.removable((ONE, TWO)) as free:
        assert free == {TWO}
    lease = locks.share(TWO)
    assert lease is not None
    with locks.removable((ONE, TWO)) as free:
        assert free == {ONE}
    unlock(lease)
    with locks.removable((ONE, TWO)) as free:
        assert free == {ONE, TWO}


def test_two_do_not_remove_the_same(root: Path) -> None:
    with Locks(root).removable((ONE,)) as mine, Locks(root).removable((ONE, TWO)) as others:
        assert (mine, others) == ({ONE}, {TWO})


def test_a_lock_file_stays_as_long_as_what_it_is_for(root: Path) -> None:
    locks = Locks(root)
    with locks.removable((ONE, TWO)):
        (root / "blobs" / ONE).rmdir()
    assert [path.name for path in (root / "locks").iterdir()] == [TWO]


def test_a_store_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("no folder")
    for locking in (Locks(tmp_path).kept((ONE,)), Locks(tmp_path).removable((ONE,))):
        with pytest.raises(StoreError, match=str(tmp_path)), locking:
            pass


def test_without_locks_all_goes_on_and_nothing_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)  # there is no such filesystem to be had everywhere
    locks = Locks(root)
    assert locks.share(ONE) is None
    with locks.kept((ONE, TWO)):
        pass
    with pytest.raises(StoreError, match="mount it with locks"), locks.removable((ONE,)):
        pass
