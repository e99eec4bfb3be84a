"""The audit log: what is noted, by whom, and as one chain, whoever writes."""

import hashlib
import json
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.audit import AuditEntry, AuditLog, Head, entry_of, evidence
from loraloom.adapters.store.objects import LocalObjects
from loraloom.adapters.store.records import RemovalRecord, encode
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.test_crash import clean_processes, open_with
from tests.adapters.store.watched_disk import NotingDisk, UnsyncedDisk

PROCESSES, TURNS = 4, 50
PATIENCE = 300.0
"""Seconds that the processes wait for one another: it ends the test if one of them does not come."""


@pytest.fixture
def given(tmp_path: Path) -> list[Path]:
    return [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(2)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return open_with(UnsyncedDisk(), root)


def told(store: Store) -> list[tuple[str | None, str, dict[str, object]]]:
    return [(entry.by, entry.action, dict(entry.subject)) for entry in store.audit.entries()]


def test_every_change_is_told_with_its_author(store: Store, given: list[Path]) -> None:
    store.publish(given[0], "sql", tag="stable", by="ann")
    store.publish(given[1], "sql", by="ben")
    store.tag("sql", "stable", 2, by="cat")
    store.rollback("sql", "stable", by="dan")
    store.pin(Adapter("sql"), by="eve")
    store.unpin(Adapter("sql"), by="fay")
    store.publish(given[1], "sql", tag="new", by="gil")
    store.remove("sql", 2, by="hal")
    store.remove("sql")
    assert told(store) == [
        ("ann", "publish", {"name": "sql", "version": 1, "tags": ["latest", "stable"]}),
        ("ben", "publish", {"name": "sql", "version": 2, "tags": ["latest"]}),
        ("cat", "tag", {"name": "sql", "tag": "stable", "version": 2}),
        ("dan", "rollback", {"name": "sql", "tag": "stable", "version": 1}),
        ("eve", "pin", {"name": "sql", "version": "latest"}),
        ("fay", "unpin", {"name": "sql", "version": "latest"}),
        ("gil", "tag", {"name": "sql", "tag": "new", "version": 2}),
        ("hal", "remove", {"name": "sql", "versions": [2]}),
        (None, "remove", {"name": "sql", "versions": [1]}),
    ]


def test_what_changes_nothing_is_not_told(store: Store, given: list[Path]) -> None:
    store.publish(given[0], "sql")
    store.pin(Adapter("sql"))
    before = told(store)
    store.publish(given[0], "sql")
    store.publish(given[0], "sql", tag="latest")
    store.tag("sql", "latest", 1)
    store.pin(Adapter("sql"))
    store.unpin(Adapter("sql", 1))
    assert told(store) == before


def test_the_records_know_their_authors_too(store: Store, given: list[Path]) -> None:
    store.publish(given[0], "sql", by="ann")
    store.publish(given[1], "sql", by="ben")
    store.tag("sql", "latest", 1, by="cat")
    assert [move.by for move in store.tag_history("sql", "latest")] == ["ann", "ben", "cat"]


def test_an_entry_names_each_of_its_records_by_hash_and_the_entry_before(
    store: Store, given: list[Path], root: Path
) -> None:
    store.publish(given[0], "sql", tag="stable")
    store.pin(Adapter("sql"))
    first, second = store.audit.entries()
    assert sorted(first.records) == [
        "names/sql/tags/latest/000001.json",
        "names/sql/tags/stable/000001.json",
        "names/sql/versions/000001.json",
        "store.json",
    ]
    assert list(second.records) == ["pins/sql/000001.json"]
    for path, sha256 in [*first.records.items(), *second.records.items()]:
        assert hashlib.sha256((root / path).read_bytes()).hexdigest() == sha256
    assert first.previous is None
    assert second.previous == hashlib.sha256((root / "audit/000001.json").read_bytes()).hexdigest()


def append_many(start: Barrier, root: Path, who: str) -> None:
    log = AuditLog(LocalObjects(root, UnsyncedDisk()))
    start.wait()
    for turn in range(TURNS):
        log.append("publish", {"turn": turn}, {}, who)


def test_four_processes_write_one_chain(store: Store) -> None:
    context = clean_processes()
    start = context.Barrier(PROCESSES, timeout=PATIENCE)
    root = Path(store.url)
    writers = [context.Process(target=append_many, args=(start, root, str(number))) for number in range(PROCESSES)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * PROCESSES
    entries = list(store.audit.entries())
    assert [entry.number for entry in entries] == list(range(1, PROCESSES * TURNS + 1))
    for who in range(PROCESSES):
        assert [entry.subject["turn"] for entry in entries if entry.by == str(who)] == list(range(TURNS))
    assert store.audit.check().findings == ()


@pytest.fixture
def long(root: Path) -> Path:
    """A store with a log of 3,000 entries, none of which makes sense, so that reading one is cheap."""
    (root / "audit").mkdir(parents=True)
    for number in range(1, 3001):
        (root / f"audit/{number:06d}.json").write_bytes(b"%d" % number)
    return root


def test_the_end_of_a_long_log_is_found_by_a_few_looks_and_then_known(long: Path) -> None:
    disk = NotingDisk()
    log = AuditLog(LocalObjects(long, disk))
    entry = log.append("pin", {}, {}, None)
    assert (entry.number, entry.previous) == (3001, hashlib.sha256(b"3000").hexdigest())
    assert "list" not in [call for call, _ in disk.calls]
    assert len([call for call, _ in disk.calls if call == "read"]) < 120
    disk.calls.clear()
    assert log.append("pin", {}, {}, None).number == 3002
    assert [path.name for call, path in disk.calls if call == "read"] == ["003002.json"]


@pytest.mark.parametrize("length", [*range(12), 32, 33, 40, 41, 72, 73, 100, 1000])
def test_the_end_is_found_in_a_log_of_any_length(root: Path, length: int) -> None:
    (root / "audit").mkdir(parents=True)
    for number in range(1, length + 1):
        (root / f"audit/{number:06d}.json").touch()
    assert AuditLog(LocalObjects(root, UnsyncedDisk())).append("pin", {}, {}, None).number == length + 1


def test_a_writer_that_others_have_left_far_behind_catches_up(root: Path) -> None:
    (root / "audit").mkdir(parents=True)
    logs = [AuditLog(LocalObjects(root, UnsyncedDisk())) for _ in range(2)]
    logs[0].append("pin", {}, {}, None)
    for _ in range(50):
        logs[1].append("pin", {}, {}, None)
    assert logs[0].append("pin", {}, {}, None).number == 52


class FullForTheLog(UnsyncedDisk):
    """Has room for all but entries of the log."""

    def link(self, source: Path, target: Path) -> None:
        if target.parent.name == "audit":
            raise OSError(28, "No space left on device", str(target))
        super().link(source, target)


def test_a_change_that_cannot_be_noted_has_been_made(
    root: Path, given: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_with(FullForTheLog(), root)
    assert store.publish(given[0], "sql", by="ann").created
    assert store.versions("sql")[0].by == "ann"
    assert told(store) == []
    (message,) = caplog.messages
    assert "publish (name sql, version 1" in message
    assert "loraloom audit adopt" in message
    assert "is full" in message


def test_an_entry_that_makes_no_sense_is_named(store: Store, given: list[Path], root: Path) -> None:
    store.publish(given[0], "sql")
    (root / "audit/000001.json").chmod(0o644)
    (root / "audit/000001.json").write_bytes(b"{")
    with pytest.raises(StoreError, match=r"audit/000001\.json .* is damaged"):
        list(store.audit.entries())


@pytest.mark.parametrize(
    "change",
    [
        {"number": 2},
        {"records": []},
        {"records": {"../../etc/secret.json": "0"}},
        {"records": {"names/sql": "0"}},
        {"records": {"pins/sql/000001.json": 1}},
        {"subject": "sql"},
        {"action": None},
        {"created": 3},
        {"by": []},
    ],
)
def test_what_is_no_entry(change: dict[str, object]) -> None:
    entry = AuditEntry(number=1, action="pin", records={"pins/sql/000001.json": "0" * 64})
    assert entry_of(1, encode(entry)) == entry
    with pytest.raises(ValueError, match=r"number|types|no record"):
        entry_of(1, json.dumps(json.loads(encode(entry)) | change).encode())
    with pytest.raises(ValueError, match="too deep"):
        entry_of(1, b"[" * 100_000)


def test_evidence_is_what_is_written(tmp_path: Path) -> None:
    record = RemovalRecord(number=3, versions=(1,))
    assert evidence("names/sql/removed", record) == {
        "names/sql/removed/000003.json": hashlib.sha256(encode(record)).hexdigest()
    }


def test_an_end_as_people_note_it() -> None:
    assert str(Head(3, "ab")) == "3:ab"
