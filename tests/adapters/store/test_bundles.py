"""Files kept under the digest of what they hold."""

import subprocess
from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob
from loraloom.adapters.store.bundles import Bundles, digest_of_files
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.watched_disk import NotingDisk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_adapter(tmp_path / "given")


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    return Bundles(LocalObjects(tmp_path), "originals")


def test_the_digest_is_what_sha256sum_says(bundles: Bundles, folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    lines = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True).stdout
    whole = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout
    assert bundles.keep(folder) == whole.decode().split()[0]


def test_the_digest_knows_the_names() -> None:
    assert digest_of_files({"a": "0", "b": "1"}) == digest_of_files({"b": "1", "a": "0"})
    assert digest_of_files({"a": "0", "b": "1"}) != digest_of_files({"a": "1", "b": "0"})


def test_a_part_of_a_bundle_is_completed(bundles: Bundles, folder: Path, tmp_path: Path) -> None:
    digest = bundles.keep(folder)
    kept = tmp_path / "originals" / digest
    (kept / "README.md").unlink()
    with pytest.raises(DamagedBlob):
        bundles.check(digest)
    assert bundles.keep(folder) == digest
    bundles.check(digest)


def test_only_what_is_damaged_is_replaced(folder: Path, tmp_path: Path) -> None:
    disk = NotingDisk()
    bundles = Bundles(LocalObjects(tmp_path, disk), "originals")
    kept = tmp_path / "originals" / bundles.keep(folder)
    bundles.keep(folder)
    assert "replace" not in dict(disk.writes())
    (kept / "README.md").unlink()
    (kept / "README.md").write_text("damaged")
    bundles.keep(folder)
    assert [path for call, path in disk.writes() if call == "replace"] == [kept / "README.md"]


def test_a_bundle_that_is_not_there(bundles: Bundles) -> None:
    assert bundles.digests() == []
    with pytest.raises(DamagedBlob, match="missing"):
        bundles.check("0" * 64)
