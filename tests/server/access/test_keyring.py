"""Keys: what each change leaves, and what happens when two come at once."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store import Store
from loraloom.adapters.store.blobs import LocalBlobs
from loraloom.adapters.store.objects import LocalObjects
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.moments import moment_of
from loraloom.server.access.records import Terms
from loraloom.server.access.table import KeyTable
from loraloom.server.errors import InvalidSettings, Unauthenticated
from tests.adapters.store.watched_disk import WatchedDisk

TERMS = Terms(adapters=("team/*",))


class Clock:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.now = moment_of("2026-01-01T00:00:00Z")

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(store: Store, clock: Clock) -> KeyRing:
    return KeyRing(store, clock=clock)


def valid(ring: KeyRing, clock: Clock, *texts: str) -> list[bool]:
    """Which of the secrets a server that starts now accepts."""
    table = KeyTable(ring, clock)

    def accepts(text: str) -> bool:
        try:
            table.access_of(text)
        except Unauthenticated:
            return False
        return True

    return [accepts(text) for text in texts]


def test_a_created_key_is_listed_and_its_secret_is_nowhere_in_the_store(store: Store, ring: KeyRing) -> None:
    issued = ring.create("team-a", TERMS, by="me")
    ring.create("Another", TERMS)
    assert [record.name for record in ring.all()] == ["Another", "team-a"]
    assert ring.all()[1] == issued.record
    assert (issued.first, issued.record.by, issued.record.since) == (True, "me", "2026-01-01T00:00:00Z")
    secret = issued.text.rpartition("_")[2]
    files = [path for path in Path(store.url).rglob("*") if path.is_file()]
    assert not any(secret in path.read_text() for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}
    assert secret not in f"{issued!r} {issued}"


def test_the_store_is_marked_as_one_and_whole(store: Store, ring: KeyRing) -> None:
    ring.create("team-a", TERMS)
    assert Path(store.url, "store.json").is_file()
    assert Path(store.url, "keys/team-a/000001.json").is_file()
    assert store.verify() == []


@pytest.mark.parametrize("name", ["", "a/b", "-a", ".", "..", "a b", "x" * 65, "a\n", "anonymous", "Nobody", "é"])
def test_a_name_has_the_letters_of_one_part_of_an_adapters(ring: KeyRing, name: str) -> None:
    with pytest.raises(InvalidSettings, match="cannot be called"):
        ring.create(name, TERMS)


@pytest.mark.parametrize(("name", "message"), [("team-a", "keys update"), ("Team-A", "only by case")])
def test_a_name_is_taken_whatever_its_case(ring: KeyRing, name: str, message: str) -> None:
    ring.create("team-a", TERMS)
    with pytest.raises(InvalidSettings, match=message):
        ring.create(name, TERMS)


def test_a_name_that_there_is_not_is_told_with_those_that_there_are(ring: KeyRing) -> None:
    with pytest.raises(InvalidSettings, match="there is none"):
        ring.revoke("team-a")
    ring.create("team-a", TERMS)
    ring.create("gone", TERMS)
    ring.revoke("gone")
    for change in (ring.rotate, ring.revoke, lambda name: ring.update(name, lambda terms: terms)):
        with pytest.raises(InvalidSettings, match="there is no key 'team': there are team-a$"):
            change("team")
        with pytest.raises(InvalidSettings, match="it is spelled 'team-a'"):
            change("TEAM-a")
        with pytest.raises(InvalidSettings, match="was revoked"):
            change("gone")


def test_rotation_ends_the_former_secret_at_once_whatever_the_clock_says(ring: KeyRing, clock: Clock) -> None:
    first, second = ring.create("k", TERMS).text, ring.rotate("k").text
    assert valid(ring, clock, first, second) == [False, True]
    clock.now -= 1000
    assert valid(ring, clock, first, second) == [False, True]


def test_rotation_with_grace_lets_both_be_valid_until_it_is_over(ring: KeyRing, clock: Clock) -> None:
    first, second = ring.create("k", TERMS).text, ring.rotate("k", grace=60).text
    assert valid(ring, clock, first, second) == [True, True]
    clock.now += 60
    assert valid(ring, clock, first, second) == [False, True]


def test_a_later_rotation_ends_all_before_it_and_prolongs_none(ring: KeyRing, clock: Clock) -> None:
    texts = [ring.create("k", TERMS).text, ring.rotate("k", grace=60).text]
    texts.append(ring.rotate("k", grace=3600).text)
    assert valid(ring, clock, *texts) == [True, True, True]
    clock.now += 60
    assert valid(ring, clock, *texts) == [False, True, True]
    texts.append(ring.rotate("k").text)
    assert valid(ring, clock, *texts) == [False, False, False, True]
    assert len(ring.all()[0].secrets) == 2


def test_rotation_keeps_what_the_key_is(ring: KeyRing, clock: Clock) -> None:
    before = ring.create("k", TERMS).record
    clock.now += 60
    after = ring.rotate("k", by="her").record
    assert (after.terms, after.since, after.name) == (before.terms, before.since, before.name)
    assert (after.number, after.created, after.by, after.action) == (2, "2026-01-01T00:01:00Z", "her", "rotate")
    assert after.id != before.id
    assert after.key != before.key


def test_update_keeps_the_secret(ring: KeyRing, clock: Clock) -> None:
    text = ring.create("k", TERMS).text
    ring.update("k", lambda terms: replace(terms, rpm=7))
    assert KeyTable(ring, clock).access_of(text).quota.rpm == 7


def test_a_revoked_name_can_be_created_again_as_a_new_key(ring: KeyRing, clock: Clock) -> None:
    first = ring.create("k", TERMS).text
    ring.revoke("k")
    assert valid(ring, clock, first) == [False]
    second = ring.create("K", TERMS)
    assert valid(ring, clock, first, second.text) == [False, True]
    assert (second.record.number, second.record.name, second.first) == (3, "K", False)


def test_a_new_key_of_a_name_owns_nothing_of_those_before_it_in_the_same_second(ring: KeyRing, clock: Clock) -> None:
    owners = set()
    for step in (0.0, 0.4, 0.4, -3600.0):
        clock.now += step
        record = ring.create("k", TERMS).record
        owners.add(record.terms.access(record.name, record.since).owner)
        ring.revoke("k")
    assert len(owners) == 4
    assert moment_of(ring.create("k", TERMS).record.created) <= clock.now


def test_each_change_is_in_the_audit_log_without_secrets_or_hashes(store: Store, ring: KeyRing) -> None:
    texts = [ring.create("k", TERMS, by="me").text, ring.rotate("k").text]
    ring.update("k", lambda terms: replace(terms, tpm=9))
    ring.revoke("k", by="her")
    with pytest.raises(InvalidSettings):
        ring.revoke("k")
    entries = list(store.audit.entries())
    assert [entry.action for entry in entries] == ["key.create", "key.rotate", "key.update", "key.revoke"]
    assert {entry.subject["name"] for entry in entries} == {"k"}
    assert (entries[0].by, entries[2].subject["tpm"], entries[3].by) == ("me", 9, "her")
    assert not store.audit.check().findings
    hidden = [text.rpartition("_")[2] for text in texts]
    hidden += [part for stored in ring.all()[0].secrets for part in (stored.salt, stored.digest)]
    assert not any(part in str(entries) for part in hidden)


def test_a_store_that_fails_right_after_a_change_keeps_nobody_from_the_new_secret(
    store: Store, ring: KeyRing, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create, read, written = LocalObjects.create, LocalObjects.read, []

    def creating(objects: LocalObjects, path: str, data: bytes) -> bool:
        written.append(path)
        return create(objects, path, data)

    def failing(objects: LocalObjects, path: str) -> bytes | None:
        if written and written[-1].startswith("keys/"):
            raise StoreError("the disk is gone")
        return read(objects, path)

    monkeypatch.setattr(LocalObjects, "create", creating)
    monkeypatch.setattr(LocalObjects, "read", failing)
    first = ring.create("k", TERMS).text
    written.clear()
    second = ring.rotate("k").text
    written.clear()
    assert valid(ring, clock, first, second) == [False, True]
    assert ["loraloom audit adopt" in message for message in caplog.messages] == [True, True]
    monkeypatch.setattr(store.audit, "_grace", 0.0)
    assert set(store.audit.check().unaudited) == {"keys/k/000001.json", "keys/k/000002.json"}


def test_a_damaged_record_says_where_it_is_and_nothing_of_what_is_in_it(store: Store, ring: KeyRing) -> None:
    digest = ring.create("k", TERMS).record.secrets[0].digest
    path = Path(store.url, "keys/k/000001.json")
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"infer"', '"god"'))
    with pytest.raises(StoreError, match=r"keys/k/000001\.json") as caught:
        KeyRing(store).all()
    assert digest not in str(caught.value)


class Overtaken(WatchedDisk):
    """Somebody else changes the key after the look and before the write of whoever uses this disk."""

    def __init__(self, other: KeyRing, change: str) -> None:
        self.other = other
        self.change: str | None = change
        self.outcome = ""

    def before(self, call: str, *arguments: object) -> None:
        if call == "link" and "/keys/k/" in str(arguments[1]) and self.change:
            change, self.change = self.change, None
            if change == "rotate":
                self.outcome = self.other.rotate("k").text
            else:
                self.other.update("k", lambda terms: replace(terms, rpm=7))


def overtaken(store: Store, ring: KeyRing, change: str) -> tuple[Overtaken, KeyRing]:
    disk = Overtaken(ring, change)
    objects = LocalObjects(Path(store.url), disk)
    return disk, KeyRing(Store(objects, LocalBlobs(objects)))


def test_of_two_rotations_at_once_one_wins_and_the_other_is_told(store: Store, ring: KeyRing, clock: Clock) -> None:
    first = ring.create("k", TERMS).text
    disk, late = overtaken(store, ring, "rotate")
    with pytest.raises(InvalidSettings, match="somebody else has just rotated"):
        late.rotate("k")
    assert valid(late, clock, first, disk.outcome) == [False, True]


def test_a_change_that_comes_between_is_not_lost(store: Store, ring: KeyRing, clock: Clock) -> None:
    ring.create("k", TERMS)
    late = overtaken(store, ring, "update")[1]
    text = late.rotate("k").text
    assert KeyTable(ring, clock).access_of(text).quota.rpm == 7
    late = overtaken(store, ring, "rotate")[1]
    assert late.update("k", lambda terms: replace(terms, tpm=9)).terms == replace(TERMS, rpm=7, tpm=9)
    assert overtaken(store, ring, "rotate")[1].revoke("k").revoked
    assert ring.all()[0].revoked


def test_two_processes_that_rotate_at_once_leave_one_valid_secret(store: Store, ring: KeyRing, clock: Clock) -> None:
    first = ring.create("k", TERMS).text
    code = (
        "import sys; from loraloom.adapters.store import Store; from loraloom.server.access.keyring import KeyRing\n"
        "ring = KeyRing(Store.open(sys.argv[1])); print('ready', flush=True); sys.stdin.readline()\n"
        "print(ring.rotate('k').text)"
    )
    command = [sys.executable, "-c", code, store.url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate() for process in processes]
    texts = [out.strip() for out, _ in told if out]
    assert all(re.search("somebody else has just rotated", error) for out, error in told if not out)
    assert len(texts) == ring.newest()["k"] - 1 >= 1
    assert sum(valid(ring, clock, *texts)) == 1
    assert valid(ring, clock, first) == [False]
