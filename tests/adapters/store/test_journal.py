"""Numbered records: written once, read once, and told when they make no sense."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedRecord
from loraloom.adapters.store.journal import Journal, record_path
from loraloom.adapters.store.objects import LocalObjects
from loraloom.adapters.store.records import RemovalRecord, TagRecord, VersionRecord, decode, encode
from tests.adapters.store.watched_disk import NotingDisk

VERSION = VersionRecord(
    number=4, name="org/sql", digest="0" * 64, original="1" * 64, base=None, base_name="b", rank=8, tags=("latest",)
)
TAG = TagRecord(number=7, tag="stable", version=4, version_id=VERSION.id, digest="0" * 64, restores=2)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(LocalObjects(tmp_path))


@pytest.mark.parametrize("record", [VERSION, TAG, RemovalRecord(number=1, versions=(1, 2))])
def test_a_record_reads_back_as_written(record: VersionRecord | TagRecord | RemovalRecord) -> None:
    assert decode(type(record), encode(record)) == record


def test_records_differ_in_their_ids() -> None:
    assert RemovalRecord(number=1, versions=(1,)).id != RemovalRecord(number=1, versions=(1,)).id


def test_what_a_later_release_adds_is_passed_over() -> None:
    values = json.loads(encode(TAG)) | {"colour": "red"}
    assert decode(TagRecord, json.dumps(values).encode()) == TAG


def test_a_number_is_taken_once(journal: Journal) -> None:
    assert journal.append("x", VERSION)
    assert not journal.append("x", VERSION)
    assert journal.numbers("x") == [4]
    assert journal.get("x", 4, VersionRecord) == VERSION


def test_numbers_are_ordered_as_numbers(journal: Journal, tmp_path: Path) -> None:
    for number in (999999, 1000000, 3):
        journal.append("x", RemovalRecord(number=number, versions=()))
    for stray in ("7.json", "000008.json~", "x.json", "000009"):
        (tmp_path / "x" / stray).write_text("")
    assert journal.numbers("x") == [3, 999999, 1000000]


def test_a_record_is_read_from_the_disk_once(tmp_path: Path) -> None:
    Journal(LocalObjects(tmp_path)).append("x", VERSION)
    disk = NotingDisk()
    journal = Journal(LocalObjects(tmp_path, disk))
    for _ in range(3):
        journal.get("x", 4, VersionRecord)
    assert disk.calls == [("read", tmp_path / "x/000004.json")]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"{}", b'{"number": 4}', b"\xff", encode(replace(VERSION, number=5))]
)
def test_a_damaged_record_is_told(journal: Journal, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / record_path("x", 4)
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(DamagedRecord, match=r"x/000004\.json.*damaged.*backup"):
        journal.get("x", 4, VersionRecord)


def test_a_record_that_disappears_is_told(journal: Journal) -> None:
    with pytest.raises(DamagedRecord, match="disappeared"):
        journal.get("x", 4, VersionRecord)
