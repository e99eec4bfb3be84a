"""What `verify` calls damaged, what garbage, and how adding again repairs."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob, StoreError
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from tests.adapters.small_adapters import small_adapter


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return small_adapter(tmp_path / "given")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def version(root: Path, given: Path) -> VersionRecord:
    return Store.open(root).publish(given, "sql").version


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def damages(store: Store) -> list[str]:
    return [finding.path for finding in store.verify() if finding.kind == "damaged"]


def blob_file(root: Path, version: VersionRecord) -> Path:
    return root / "blobs" / version.digest / "adapter_model.safetensors"


def test_a_damaged_blob_is_found_and_repaired_by_adding_again(root: Path, given: Path, version: VersionRecord) -> None:
    file = blob_file(root, version)
    whole = file.read_bytes()
    overwrite(file, whole[:-1] + b"\0")
    store = Store.open(root)
    assert damages(store) == [f"blobs/{version.digest}"]
    with pytest.raises(DamagedBlob, match="Add it again"):
        store.check(version.digest)
    assert not store.publish(given, "sql").created
    assert file.read_bytes() == whole
    assert file.stat().st_mode & 0o777 == 0o444
    assert store.verify() == []


def test_a_blob_that_is_no_adapter_any_more_is_damaged(root: Path, version: VersionRecord) -> None:
    overwrite(root / "blobs" / version.digest / "adapter_config.json", b"{}")
    with pytest.raises(DamagedBlob, match="adapter_config"):
        Store.open(root).manifest(version.digest)


def test_a_missing_file_is_found_and_repaired_by_adding_again(root: Path, given: Path, version: VersionRecord) -> None:
    blob_file(root, version).unlink()
    store = Store.open(root)
    assert damages(store) == [f"blobs/{version.digest}"]
    for call in (store.check, store.folder, store.acquire, store.manifest):
        with pytest.raises(DamagedBlob):
            call(version.digest)
    assert store.publish(given, "sql").version == version
    assert store.verify() == []


def test_whoever_reads_a_blob_while_it_is_repaired_keeps_what_it_opened(
    root: Path, given: Path, version: VersionRecord
) -> None:
    file = blob_file(root, version)
    overwrite(file, b"damaged")
    with file.open("rb") as reader:
        Store.open(root).publish(given, "sql")
        assert reader.read() == b"damaged"
    assert file.read_bytes() != b"damaged"


def test_a_file_too_many_is_damage(root: Path, version: VersionRecord) -> None:
    (root / "blobs" / version.digest / "adapter_model.bin").write_bytes(b"")
    assert damages(Store.open(root)) == [f"blobs/{version.digest}"]


def test_a_damaged_original_is_found_and_repaired(root: Path, given: Path, version: VersionRecord) -> None:
    overwrite(root / "originals" / version.original / "README.md", b"other words")
    assert damages(Store.open(root)) == [f"originals/{version.original}"]
    Store.open(root).publish(given, "sql")
    assert Store.open(root).verify() == []


def test_damage_concerns_one_name_only(root: Path, tmp_path: Path, version: VersionRecord) -> None:
    store = Store.open(root)
    store.publish(small_adapter(tmp_path / "other", 1), "date")
    overwrite(root / "names/sql/versions/000001.json", b"{")
    fresh = Store.open(root)
    assert damages(fresh) == ["names/sql/versions/000001.json"]
    assert fresh.verify("date") == []
    assert fresh.resolve(Adapter("date")).number == 1
    with pytest.raises(StoreError, match="damaged"):
        fresh.resolve(Adapter("sql"))


def test_a_record_read_before_is_verified_on_the_disk(root: Path, version: VersionRecord) -> None:
    store = Store.open(root)
    store.resolve(Adapter("sql"))
    overwrite(root / "names/sql/tags/latest/000001.json", b"{")
    assert damages(store) == ["names/sql/tags/latest/000001.json"]


def test_what_refers_to_a_blob_is_unknown_while_a_record_is_damaged(root: Path, version: VersionRecord) -> None:
    overwrite(root / "names/sql/versions/000001.json", b"{")
    assert {finding.kind for finding in Store.open(root).verify()} == {"damaged"}


def test_an_unfinished_publication_is_garbage(root: Path, version: VersionRecord, tmp_path: Path) -> None:
    store = Store.open(root)
    second = store.publish(small_adapter(tmp_path / "other", 1), "sql").version
    (root / "names/sql/versions/000002.json").unlink()
    (root / "stage/0123").mkdir()
    fresh = Store.open(root)
    assert fresh.tags("sql") == {"latest": 1}
    assert {(finding.kind, finding.path) for finding in fresh.verify()} == {
        ("garbage", "stage/0123"),
        ("garbage", "names/sql/tags/latest/000002.json"),
        ("garbage", f"blobs/{second.digest}"),
        ("garbage", f"originals/{second.original}"),
        ("garbage", f"facts/{second.digest}"),
    }


def test_a_damaged_record_of_a_key_is_found(root: Path, version: VersionRecord) -> None:
    folder = root / "keys" / "team"
    folder.mkdir(parents=True)
    (folder / "000001.json").write_text("{")
    assert damages(Store.open(root)) == ["keys/team/000001.json"]
