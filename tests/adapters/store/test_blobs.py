"""Leases on the folders of a local store."""

import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.store import Store
from loraloom.adapters.store.blobs import LocalBlobs
from loraloom.adapters.store.locks import Locks
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.readers import give_back_writing, open_folder, start_reader, take_away_writing
from tests.adapters.store.test_crash import clean_processes

PATIENCE = 60.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def digest(root: Path, tmp_path: Path) -> str:
    return Store.open(root).publish(small_adapter(tmp_path / "given"), "sql").version.digest


def is_removable(root: Path, digest: str) -> bool:
    with Locks(root).removable((digest,)) as free:
        return digest in free


def test_a_lease_lasts_until_its_last_user(root: Path, digest: str) -> None:
    blobs = LocalBlobs(LocalObjects(root))
    folders = {blobs.acquire(digest) for _ in range(3)}
    assert folders == {root / "blobs" / digest}
    for _ in range(3):
        assert not is_removable(root, digest)
        blobs.release(digest)
    assert is_removable(root, digest)


def test_threads_share_one_lease(root: Path, digest: str) -> None:
    blobs = LocalBlobs(LocalObjects(root))
    start = threading.Barrier(8)
    seen: list[bool] = []

    def use() -> None:
        start.wait()
        for _ in range(50):
            blobs.acquire(digest)
            seen.append(is_removable(root, digest))
            blobs.release(digest)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(seen), any(seen)) == (400, False)
    assert is_removable(root, digest)


def test_what_is_missing_leaves_no_lease_and_no_lock(root: Path, digest: str) -> None:
    blobs = LocalBlobs(LocalObjects(root))
    unknown = "0" * 64
    with pytest.raises(DamagedBlob):
        blobs.acquire(unknown)
    assert not (root / "locks" / unknown).exists()
    (root / "blobs" / digest / "adapter_model.safetensors").unlink()
    with pytest.raises(DamagedBlob):
        blobs.acquire(digest)
    assert is_removable(root, digest)


def hold(root: Path, digest: str, held: Event, enough: Event) -> None:
    with Store.open(root, create=False).leased(digest) as folder:
        assert (folder / "adapter_config.json").read_bytes()
        held.set()
        assert enough.wait(PATIENCE)


@pytest.mark.parametrize("locked", [True, False], ids=["with-lock-file", "without"])
def test_a_store_that_can_only_be_read_is_served(tmp_path: Path, locked: bool) -> None:
    """The lease of a reader counts where a publisher has made the lock file, as all do."""
    with open_folder() as folder:
        root = folder / "store"
        digest = Store.open(root).publish(small_adapter(tmp_path / "given"), "sql").version.digest
        if not locked:
            (root / "locks" / digest).unlink()
        take_away_writing(root)
        held, enough = clean_processes().Event(), clean_processes().Event()
        reader = start_reader(hold, root, digest, held, enough)
        assert held.wait(PATIENCE)
        give_back_writing(root)
        assert is_removable(root, digest) is not locked
        enough.set()
        reader.join()
        assert reader.exitcode == 0


def test_the_lease_of_a_process_that_dies_ends(root: Path, digest: str) -> None:
    held, enough = clean_processes().Event(), clean_processes().Event()
    process = clean_processes().Process(target=hold, args=(root, digest, held, enough))
    process.start()
    assert held.wait(PATIENCE)
    assert not is_removable(root, digest)
    process.kill()
    process.join()
    end = time.monotonic() + PATIENCE
    while not is_removable(root, digest):
        assert time.monotonic() < end
