"""Verified directories: hashed when new or changed, and never handed out damaged."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from loraloom.adapters.errors import DamagedBlob, StoreError
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE
from loraloom.adapters.store import Store
from loraloom.server.gate.blobs import VerifiedBlobs
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import Publish, empty_store


class CountingStore(Store):
    """A store that counts how often it hashes, and what is in use."""

    checks = 0
    in_use = 0

    def check(self, digest: str) -> None:
        self.checks += 1
        super().check(digest)

    def acquire(self, digest: str) -> Path:
        folder = super().acquire(digest)
        self.in_use += 1
        return folder

    def release(self, digest: str) -> None:
        self.in_use -= 1
        super().release(digest)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return empty_store(tmp_path / "store", CountingStore)


@pytest.fixture
def blobs(store: CountingStore) -> VerifiedBlobs:
    return VerifiedBlobs(store)


@pytest.fixture
def digest(publish: Publish) -> str:
    return publish("sql").digest


@pytest.fixture
def folder(store: CountingStore, digest: str) -> Path:
    """The stored files, made writable as whoever damages them would."""
    place = store.acquire(digest)
    store.release(digest)
    place.chmod(0o755)
    for file in place.iterdir():
        file.chmod(0o644)
    return place


def test_files_are_hashed_once(store: CountingStore, blobs: VerifiedBlobs, digest: str) -> None:
    folders = {blobs.acquire(digest) for _ in range(3)}
    assert [sorted(file.name for file in folder.iterdir()) for folder in folders] == [[CONFIG_FILE, WEIGHTS_FILE]]
    assert store.checks == 1
    assert store.in_use == 3
    for _ in range(3):
        blobs.release(digest)
    assert store.in_use == 0


def touched(file: Path) -> None:
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def copied(file: Path) -> None:
    """The same bytes and the same time, in another file."""
    before = file.stat()
    shutil.copyfile(file, file.with_suffix(".new"))
    os.replace(file.with_suffix(".new"), file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("change", [touched, copied])
def test_files_that_are_not_the_same_any_more_are_hashed_again(
    store: CountingStore,
    blobs: VerifiedBlobs,
    digest: str,
    folder: Path,
    name: str,
    change: Callable[[Path], None],
) -> None:
    blobs.acquire(digest)
    change(folder / name)
    blobs.acquire(digest)
    assert store.checks == 2
    blobs.acquire(digest)
    assert store.checks == 2


def flipped(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def deleted(file: Path) -> None:
    file.unlink()


def folder_deleted(file: Path) -> None:
    shutil.rmtree(file.parent)


def made_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


HARMS = [flipped, truncated, emptied, deleted, folder_deleted, made_a_folder]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("known", [True, False], ids=["verified before", "not yet verified"])
def test_harm_is_found_and_nothing_stays_in_use(
    store: CountingStore,
    blobs: VerifiedBlobs,
    digest: str,
    folder: Path,
    harm: Callable[[Path], None],
    name: str,
    known: bool,
) -> None:
    if known:
        blobs.acquire(digest)
        blobs.release(digest)
    harm(folder / name)
    for _ in range(2):
        with pytest.raises(DamagedBlob, match="Add it again"):
            blobs.acquire(digest)
    assert store.in_use == 0


def test_what_has_been_repaired_is_handed_out_again(blobs: VerifiedBlobs, digest: str, folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    flipped(folder / WEIGHTS_FILE)
    with pytest.raises(DamagedBlob):
        blobs.acquire(digest)
    (folder / WEIGHTS_FILE).write_bytes(whole)
    assert blobs.acquire(digest) == folder


def test_a_digest_that_was_never_stored(blobs: VerifiedBlobs, store: CountingStore) -> None:
    with pytest.raises(DamagedBlob, match="missing"):
        blobs.acquire("0" * 64)
    assert store.in_use == 0


def test_what_is_damaged_is_not_hashed_again_and_told_once(
    store: CountingStore, blobs: VerifiedBlobs, digest: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert blobs.quarantined == {}
    flipped(folder / WEIGHTS_FILE)
    told = set()
    for _ in range(3):
        with pytest.raises(DamagedBlob) as caught:
            blobs.acquire(digest)
        told.add(str(caught.value))
    assert store.checks == 1
    assert store.in_use == 0
    assert len(told) == 1
    assert blobs.quarantined == {digest: f"the files in blobs/{digest} are not those that were stored"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_publishing_it_again_ends_the_quarantine(
    store: CountingStore, blobs: VerifiedBlobs, publish: Publish, folder: Path, digest: str
) -> None:
    flipped(folder / WEIGHTS_FILE)
    with pytest.raises(DamagedBlob):
        blobs.acquire(digest)
    assert publish("sql", seed=0).digest == digest
    assert blobs.acquire(digest) == folder
    assert blobs.quarantined == {}
    blobs.acquire(digest)
    assert store.checks == 2


def test_a_file_that_is_missing_and_comes_back(blobs: VerifiedBlobs, digest: str, folder: Path) -> None:
    blobs.acquire(digest)
    (folder / WEIGHTS_FILE).rename(folder.parent / "elsewhere")
    with pytest.raises(DamagedBlob, match="missing"):
        blobs.acquire(digest)
    assert list(blobs.quarantined) == [digest]
    (folder.parent / "elsewhere").rename(folder / WEIGHTS_FILE)
    assert blobs.acquire(digest) == folder
    assert blobs.quarantined == {}


def test_a_stray_file_is_damage_until_it_is_gone(blobs: VerifiedBlobs, digest: str, folder: Path) -> None:
    (folder / "stray").touch()
    with pytest.raises(DamagedBlob):
        blobs.acquire(digest)
    (folder / "stray").unlink()
    assert blobs.acquire(digest) == folder


class Downloads(MemoryFileSystem):
    """Counts the downloads of weights."""

    protocol = "downloads"
    weights = 0

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        Downloads.weights += str(rpath).endswith(WEIGHTS_FILE)
        super().get_file(rpath, lpath, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(f"/{path.split('://', 1)[-1]}"))


def test_behind_a_url_damage_is_fetched_again_after_a_while_only(tmp_path: Path) -> None:
    fsspec.register_implementation("downloads", Downloads, clobber=True)
    given, url = small_adapter(tmp_path / "given", 0), f"downloads://{tmp_path.name}"
    digest = Store.open(url, cache=tmp_path / "other").publish(given, "sql").version.digest
    weights = f"/{tmp_path.name}/blobs/{digest}/{WEIGHTS_FILE}"
    filesystem, now, before = Downloads(), 0.0, Downloads.weights
    whole = filesystem.cat_file(weights)
    filesystem.pipe_file(weights, whole[:-1])
    blobs = VerifiedBlobs(Store.open(url, cache=tmp_path / "cache"), again=30.0, clock=lambda: now)
    for _ in range(3):
        with pytest.raises(DamagedBlob, match="holds other bytes"):
            blobs.acquire(digest)
    assert Downloads.weights == before + 1
    filesystem.pipe_file(weights, whole)
    now = 29.0
    with pytest.raises(DamagedBlob):
        blobs.acquire(digest)
    now = 31.0
    assert blobs.acquire(digest).name == digest
    assert blobs.quarantined == {}


class Stale(CountingStore):
    """A store on a network filesystem that is not mounted as it was."""

    def acquire(self, digest: str) -> Path:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), digest)


def test_a_store_that_cannot_be_looked_at_is_no_damage(tmp_path: Path) -> None:
    blobs = VerifiedBlobs(empty_store(tmp_path / "stale", Stale))
    with pytest.raises(StoreError, match="mount its filesystem again") as caught:
        blobs.acquire("0" * 64)
    assert not isinstance(caught.value, DamagedBlob)
    assert blobs.quarantined == {}
