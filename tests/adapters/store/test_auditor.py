"""Checking a store against its log: every way to tamper with either that can be found is found."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.audit import AuditLog, Head, sha256_of
from loraloom.adapters.store.auditor import Audited, Auditor
from loraloom.adapters.store.disk import Disk
from loraloom.adapters.store.objects import LocalObjects
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.test_audit import FullForTheLog, told
from tests.adapters.store.test_crash import open_with
from tests.adapters.store.watched_disk import UnsyncedDisk, WatchedDisk


@pytest.fixture
def given(tmp_path: Path) -> list[Path]:
    return [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(2)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path, given: list[Path]) -> Store:
    """A store with a log of five entries: two versions, a tag, a pin, a removal."""
    store = open_with(UnsyncedDisk(), root)
    store.publish(given[0], "sql", tag="stable", by="ann")
    store.publish(given[1], "sql", by="ben")
    store.tag("sql", "stable", 2, by="ann")
    store.pin(Adapter("sql"), by="ben")
    store.remove("sql", 1, by="ann")
    return store


def auditor(root: Path, disk: Disk | None = None) -> Auditor:
    objects = LocalObjects(root, disk or UnsyncedDisk())
    return Auditor(objects, AuditLog(objects), grace=0)


def check(root: Path, known: Head | None = None) -> Audited:
    return auditor(root).check(known)


def found(root: Path, known: Head | None = None) -> list[tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in check(root, known).findings]


def entry(root: Path, number: int) -> Path:
    path = root / f"audit/{number:06d}.json"
    path.chmod(0o644)
    return path


def changed(path: Path, **values: object) -> None:
    path.chmod(0o644)
    path.write_bytes(json.dumps(json.loads(path.read_bytes()) | values, indent=1).encode())


def test_what_nobody_touched_is_whole(root: Path, store: Store) -> None:
    audited = check(root)
    assert (audited.head.number, audited.records) == (5, 9)
    assert audited.findings == audited.older == audited.unaudited == ()
    assert audited.head.sha256 == sha256_of(entry(root, 5).read_bytes())
    assert check(root, audited.head).findings == ()


def test_collecting_garbage_takes_nothing_that_the_log_names(root: Path, store: Store) -> None:
    store.remove("sql")
    assert list(store.collect())
    assert check(root).findings == ()


def test_a_later_log_still_has_an_end_that_was_noted(root: Path, store: Store) -> None:
    known = check(root).head
    store.tag("sql", "new", 2)
    assert check(root, known).findings == ()


def test_a_changed_entry(root: Path, store: Store) -> None:
    changed(entry(root, 2), by="eve")
    assert found(root) == [("log", "audit/000002.json")]


def test_an_entry_that_is_none_any_more(root: Path, store: Store) -> None:
    entry(root, 2).write_bytes(b"\x00")
    logged, *records = found(root)
    assert logged == ("log", "audit/000002.json")
    assert ("unaudited", "names/sql/versions/000002.json") in records


def test_an_entry_taken_from_the_middle(root: Path, store: Store) -> None:
    entry(root, 3).unlink()
    assert found(root) == [("log", "audit/000003.json"), ("unaudited", "names/sql/tags/stable/000002.json")]


def test_several_taken_from_the_beginning(root: Path, store: Store) -> None:
    for number in (1, 2, 3):
        entry(root, number).unlink()
    (finding,) = [each for each in check(root).findings if each.kind == "log"]
    assert (finding.path, finding.detail) == ("audit/000001.json", "it is missing, and so are all up to 3")


def test_two_entries_in_each_others_place(root: Path, store: Store) -> None:
    one, other = entry(root, 2).read_bytes(), entry(root, 3).read_bytes()
    entry(root, 2).write_bytes(other)
    entry(root, 3).write_bytes(one)
    assert {path for kind, path in found(root) if kind == "log"} == {"audit/000002.json", "audit/000003.json"}


def test_a_cut_off_end_with_its_records_is_seen_by_the_noted_end_only(root: Path, store: Store) -> None:
    known = check(root).head
    entry(root, 5).unlink()
    (root / "names/sql/removed/000001.json").unlink()
    assert found(root) == []
    assert found(root, known) == [("log", "audit/000005.json")]


def test_a_cut_off_end_alone_leaves_records_without_an_entry(root: Path, store: Store) -> None:
    entry(root, 5).unlink()
    assert found(root) == [("unaudited", "names/sql/removed/000001.json")]


def test_a_log_written_anew_is_seen_by_the_noted_end_only(root: Path, store: Store) -> None:
    known = check(root).head
    changed(entry(root, 3), by="eve")
    for number in (4, 5):
        changed(entry(root, number), previous=sha256_of(entry(root, number - 1).read_bytes()))
    assert found(root) == []
    assert found(root, known) == [("log", "audit/000005.json")]


def test_the_last_entry_alone_is_bound_by_the_noted_end_only(root: Path, store: Store) -> None:
    known = check(root).head
    changed(entry(root, 5), by="eve")
    assert found(root) == []
    assert found(root, known) == [("log", "audit/000005.json")]


@pytest.mark.parametrize("path", ["versions/000002.json", "versions/000001.json", "tags/stable/000002.json"])
def test_a_changed_record(root: Path, store: Store, path: str) -> None:
    changed(root / "names/sql" / path, by="eve")
    assert found(root) == [("record", f"names/sql/{path}")]


@pytest.mark.parametrize(
    "path", ["names/sql/tags/stable/000002.json", "names/sql/removed/000001.json", "pins/sql/000001.json"]
)
def test_a_record_that_is_gone(root: Path, store: Store, path: str) -> None:
    (root / path).unlink()
    assert found(root) == [("record", path)]


def test_a_record_that_cannot_be_read(root: Path, store: Store) -> None:
    (root / "names/sql/removed/000001.json").chmod(0o644)
    (root / "names/sql/removed/000001.json").write_bytes(b"")
    assert ("record", "names/sql/removed/000001.json") in found(root)
    assert ("record", "names/sql") in found(root)


def forged_tag(root: Path) -> None:
    source = json.loads((root / "names/sql/tags/latest/000002.json").read_bytes())
    (root / "names/sql/tags/latest/000003.json").write_text(json.dumps(source | {"number": 3}))


def forged_pin(root: Path) -> None:
    source = json.loads((root / "pins/sql/000001.json").read_bytes())
    (root / "pins/sql/000002.json").write_text(json.dumps(source | {"number": 2, "pins": {}}))


def forged_key(root: Path) -> None:
    (root / "keys/eve").mkdir(parents=True)
    (root / "keys/eve/000001.json").write_text(json.dumps({"number": 1, "created": "2999-01-01T00:00:00Z"}))


@pytest.mark.parametrize(
    ("forge", "path"),
    [
        (forged_tag, "names/sql/tags/latest/000003.json"),
        (forged_pin, "pins/sql/000002.json"),
        (forged_key, "keys/eve/000001.json"),
    ],
)
def test_a_record_without_an_entry(root: Path, store: Store, forge: Callable[[Path], None], path: str) -> None:
    forge(root)
    assert found(root) == [("unaudited", path)]
    assert check(root).unaudited == (path,)


def test_nothing_passes_as_older_than_a_log_that_began_with_the_store(root: Path, store: Store) -> None:
    forged_tag(root)
    changed(root / "names/sql/tags/latest/000003.json", created="2001-01-01T00:00:00Z")
    assert found(root) == [("unaudited", "names/sql/tags/latest/000003.json")]
    changed(root / "store.json", audited=False)
    assert found(root) == [("record", "store.json")]


def test_tags_of_a_publication_that_never_finished_need_no_entry(root: Path, store: Store) -> None:
    source = json.loads((root / "names/sql/tags/latest/000002.json").read_bytes())
    left_over = source | {"number": 3, "version": 3, "version_id": "0" * 32}
    (root / "names/sql/tags/latest/000003.json").write_text(json.dumps(left_over))
    assert found(root) == []


def test_a_change_that_found_the_log_full_is_adopted_with_what_it_knows(root: Path, given: list[Path]) -> None:
    store = open_with(FullForTheLog(), root)
    store.publish(given[0], "sql", by="ann")
    store.tag("sql", "stable", 1, by="ann")
    open_with(UnsyncedDisk(), root).pin(Adapter("sql"), by="ben")
    assert check(root).unaudited == (
        "names/sql/tags/latest/000001.json",
        "names/sql/tags/stable/000001.json",
        "names/sql/versions/000001.json",
    )
    assert auditor(root).adopt("cat") == 3
    assert told(open_with(UnsyncedDisk(), root))[-1] == ("cat", "adopt", {"records": 3})
    assert found(root) == []
    assert auditor(root).adopt("cat") == 0


def aged(root: Path) -> None:
    """The store, and every record of a name, is from before there were logs."""
    changed(root / "store.json", audited=False)
    for path in (root / "names").rglob("*.json"):
        changed(path, created="2001-01-01T00:00:00Z")


def test_a_store_that_is_older_than_its_log(root: Path, store: Store) -> None:
    for number in range(1, 6):
        entry(root, number).unlink()
    assert len(check(root).unaudited) == 8
    aged(root)
    audited = check(root)
    assert (audited.head, audited.findings, len(audited.older)) == (Head(), (), 8)
    store = open_with(UnsyncedDisk(), root)
    store.unpin(Adapter("sql"))
    (root / "pins/sql/000001.json").unlink()
    audited = check(root)
    assert (audited.head.number, audited.findings, len(audited.older)) == (1, (), 7)


def test_once_older_records_were_adopted_none_can_be_slipped_in(root: Path, store: Store) -> None:
    for number in range(1, 6):
        entry(root, number).unlink()
    aged(root)
    assert auditor(root).adopt("ann") == 8
    assert found(root) == []
    forged_tag(root)
    changed(root / "names/sql/tags/latest/000003.json", created="2001-01-01T00:00:00Z")
    assert found(root) == [("unaudited", "names/sql/tags/latest/000003.json")]


class Overtaken(WatchedDisk):
    """Lets somebody else make a change as soon as the log has been listed."""

    def __init__(self, change: Callable[[], object]) -> None:
        self.change: Callable[[], object] | None = change

    def after(self, call: str, *arguments: object) -> None:
        if call == "list" and str(arguments[0]).endswith("/audit") and self.change:
            change, self.change = self.change, None
            change()


def test_a_change_made_during_the_check_is_no_finding(root: Path, store: Store) -> None:
    overtaken = auditor(root, Overtaken(lambda: store.tag("sql", "new", 2)))
    assert overtaken.check().findings == ()


def test_an_author_who_is_alive_gets_time_for_the_entry(root: Path, store: Store) -> None:
    """The record is there before the check, and its entry only after the log was listed."""
    entry_bytes = entry(root, 5).read_bytes()
    entry(root, 5).unlink()
    late = auditor(root, Overtaken(lambda: (root / "audit/000005.json").write_bytes(entry_bytes)))
    audited = late.check()
    assert (audited.head.number, audited.findings) == (5, ())


def test_what_others_note(root: Path, store: Store) -> None:
    forged_key(root)
    records = {"keys/eve/000001.json": sha256_of((root / "keys/eve/000001.json").read_bytes())}
    assert store.audit.note("key.create", {"name": "eve"}, records, by="ann")
    assert told(store)[-1] == ("ann", "key.create", {"name": "eve"})
    assert found(root) == []
    changed(root / "keys/eve/000001.json", role="admin")
    assert found(root) == [("record", "keys/eve/000001.json")]
