"""The keys as a running server knows them."""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.adapters.errors import StoreError
from loraloom.adapters.store import Store
from loraloom.server.access import table as table_module
from loraloom.server.access.access import ANYONE, Access, Role
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.moments import moment_of
from loraloom.server.access.patterns import Patterns
from loraloom.server.access.records import Terms
from loraloom.server.access.table import KeyTable
from loraloom.server.errors import Unauthenticated

TERMS = Terms(adapters=("team/*",))
START = moment_of("2026-01-01T00:00:00Z")
LETTERS = "0aZ_"
JOB = Access("team", Role.INFER, Patterns(("team/x",)), background=True)


def _some_table() -> KeyTable:
    """A table with one key, for tests that try many inputs."""
    with tempfile.TemporaryDirectory() as folder:
        ring = KeyRing(Store.open(folder))
        ring.create("k", TERMS)
        return KeyTable(ring)


SOME_TABLE = _some_table()


class Clock:
    """A clock that somebody sets."""

    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(store: Store) -> KeyRing:
    return KeyRing(store, clock=lambda: START)


@pytest.fixture
def build(store: Store, clock: Clock) -> Callable[[], KeyTable]:
    """Makes the table of a server that starts now, and shares no memory with `ring`."""
    return lambda: KeyTable(KeyRing(store), clock)


Build = Callable[[], KeyTable]


def refusal(table: KeyTable, text: str | None) -> str:
    with pytest.raises(Unauthenticated) as caught:
        table.access_of(text)
    return str(caught.value)


def damage(store: Store, path: str, text: str = "{") -> None:
    file = Path(store.url, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        file.chmod(0o644)
    file.write_text(text)


def test_without_keys_everybody_may_come_in_with_whatever_they_send(build: Build) -> None:
    table = build()
    assert not table.in_force
    assert all(table.access_of(text) is ANYONE for text in (None, "", "sk-anything", "ll_x"))


def test_with_keys_only_who_has_one_comes_in(build: Build, ring: KeyRing) -> None:
    issued = ring.create("team", TERMS)
    table = build()
    assert table.in_force
    assert table.access_of(issued.text) == replace(TERMS.access("team", ""), since=table.access_of(issued.text).since)
    assert "no key was sent" in refusal(table, None)
    assert "Authorization: Bearer" in refusal(table, None)
    for wrong in ("x", "sk-123", issued.text[:-1], issued.text.upper(), f"ll_{'0' * 12}_{'0' * 43}", "é" * 500):
        assert "not a valid key" in refusal(table, wrong)


def test_headers_are_read_as_clients_send_them(build: Build, ring: KeyRing) -> None:
    text = ring.create("team", TERMS).text.encode()
    table = build()
    for header in ((b"authorization", b"Bearer " + text), (b"x-api-key", text)):
        assert table.authenticate([(b"host", b"x"), header]).key == "team"


def test_revoking_the_last_key_does_not_open_the_server(build: Build, ring: KeyRing) -> None:
    text = ring.create("team", TERMS).text
    followed = build()
    ring.revoke("team")
    followed.look()
    for table in (followed, build()):
        assert table.in_force
        refusal(table, None)
        assert "the key 'team' was revoked" in refusal(table, text)


def test_a_key_expires_by_the_clock_and_is_valid_again_where_that_jumps_back(
    build: Build, ring: KeyRing, clock: Clock
) -> None:
    text = ring.create("team", replace(TERMS, expires="2026-01-02T00:00:00Z")).text
    table = build()
    assert table.access_of(text)
    clock.now = START + 24 * 3600
    assert "the key 'team' expired at 2026-01-02T00:00:00Z" in refusal(table, text)
    clock.now -= 1
    assert table.access_of(text)


def test_a_replaced_secret_is_told_so_after_its_grace(build: Build, ring: KeyRing, clock: Clock) -> None:
    first, second = ring.create("team", TERMS).text, ring.rotate("team", grace=60).text
    table = build()
    assert table.access_of(first) == table.access_of(second)
    clock.now += 60
    assert "this secret of the key 'team' has been replaced" in refusal(table, first)
    assert table.access_of(second)
    third = ring.rotate("team").text
    table.look()
    assert "has been replaced" in refusal(table, second)
    assert "not a valid key" in refusal(table, first)
    assert table.access_of(third)


def test_why_a_key_is_over_is_told_only_to_who_has_its_secret(build: Build, ring: KeyRing, clock: Clock) -> None:
    expired = ring.create("expired", replace(TERMS, expires="2026-01-02T00:00:00Z"))
    revoked, rotated = ring.create("revoked", TERMS), ring.create("rotated", TERMS)
    ring.revoke("revoked")
    ring.rotate("rotated")
    table = build()
    clock.now += 7 * 24 * 3600
    unknown = refusal(table, "no key at all")
    for issued in (expired, revoked, rotated):
        assert issued.record.name in refusal(table, issued.text)
        guessed = issued.text[:-1] + ("0" if issued.text[-1] != "0" else "1")
        assert refusal(table, guessed) == unknown


@settings(max_examples=40)
@given(headers=st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"host"]), st.binary())))
def test_whatever_is_sent_is_let_in_or_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with suppress(Unauthenticated):
        SOME_TABLE.authenticate([(name, b"Bearer " + value) for name, value in headers])
    with suppress(Unauthenticated):
        SOME_TABLE.authenticate(headers)


@settings(max_examples=40)
@given(text=st.text() | st.builds("ll_{}_{}".format, st.text(LETTERS, max_size=13), st.text(LETTERS, max_size=44)))
def test_nobody_guesses_a_key(text: str) -> None:
    with pytest.raises(Unauthenticated):
        SOME_TABLE.access_of(text)


def test_a_temporary_key_is_accepted_within_its_block_only(build: Build, ring: KeyRing) -> None:
    ring.create("someone", TERMS)
    table, job = build(), JOB
    with table.temporary(job) as first, table.temporary(Access("other", Role.INFER)) as second:
        assert table.access_of(first) is job
        assert table.access_of(second).key == "other"
        assert "not a valid key" in refusal(table, first[:-1] + ("0" if first[-1] != "0" else "1"))
    assert "not a valid key" in refusal(table, first)


def test_nothing_goes_on_in_the_name_of_a_key_that_was_revoked(store: Store, ring: KeyRing) -> None:
    """Also if another key gets the name, in whatever letters it is written."""
    issued = ring.create("Team", TERMS)
    table = KeyTable(ring)
    access = table.access_of(issued.text).for_a_job(["team/x"])
    with table.temporary(access) as job, table.temporary(replace(access, key="elsewhere")) as other:
        assert table.access_of(job) is access
        ring.rotate("Team", 0)
        table.look()
        assert table.access_of(job) is access
        ring.revoke("Team")
        table.look()
        assert "not a valid key" in refusal(table, job)
        later = KeyRing(store, clock=lambda: time.time() + 60)
        new = later.create("Team", TERMS)
        table.look()
        assert "not a valid key" in refusal(table, job)
        assert table.access_of(new.text).owner != access.owner
        assert table.access_of(other).key == "elsewhere"


def test_a_temporary_key_counts_also_where_no_keys_are_in_force(build: Build) -> None:
    table = build()
    with suppress(KeyError), table.temporary(JOB) as text:
        assert table.access_of(text) is JOB
        raise KeyError
    assert table.access_of(text) is ANYONE
    assert not table.in_force


def test_a_look_brings_what_has_changed_and_reads_nothing_else(store: Store, ring: KeyRing, build: Build) -> None:
    kept, changed = ring.create("kept", TERMS), ring.create("changed", TERMS)
    table = build()
    before = table.access_of(kept.text)
    ring.update("changed", lambda terms: replace(terms, rpm=7))
    added = ring.create("added", TERMS)
    damage(store, "keys/kept/000001.json")
    table.look()
    assert table.access_of(kept.text) is before
    assert table.access_of(changed.text).quota.rpm == 7
    assert table.access_of(added.text).key == "added"


async def test_changes_of_another_process_arrive_while_it_runs(
    build: Build, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "LOCAL_PAUSE_S", 0)
    table = build()
    running = asyncio.create_task(table.run())
    text = ring.create("team", TERMS).text
    while not table.in_force:
        await asyncio.sleep(0)
    assert table.access_of(text)
    ring.revoke("team")
    while True:
        await asyncio.sleep(0)
        try:
            table.access_of(text)
        except Unauthenticated:
            break
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_it_looks_often_enough_to_follow_within_a_second() -> None:
    assert table_module.LOCAL_PAUSE_S < table_module.REMOTE_PAUSE_S <= 1


def test_a_store_that_cannot_be_read_is_an_error_at_first(store: Store, build: Build) -> None:
    damage(store, "keys/team/000001.json")
    with pytest.raises(StoreError, match=r"keys/team/000001\.json"):
        build()
    shutil.rmtree(store.url)
    with pytest.raises(StoreError, match="is gone"):
        build()


@pytest.mark.parametrize("lost", ["", "keys", "keys/team"])
def test_a_store_that_is_gone_leaves_the_last_table_and_is_told_once(
    store: Store, build: Build, ring: KeyRing, lost: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = ring.create("team", TERMS).text
    table = build()
    caplog.set_level(logging.INFO, "loraloom.server.access.table")
    place, aside = Path(store.url, lost), tmp_path / "aside"
    place.rename(aside)
    for _ in range(3):
        table.follow()
    assert table.access_of(text).key == "team"
    assert table.in_force
    refusal(table, None)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "stay in force" in caplog.text
    aside.rename(place)
    ring.revoke("team")
    for _ in range(2):
        table.follow()
    refusal(table, text)
    assert [record.getMessage() for record in caplog.records[1:]] == ["the keys can be read again"]
    assert text.rpartition("_")[2] not in caplog.text


def test_a_damaged_record_keeps_that_key_as_it_was_and_holds_no_other_up(
    store: Store, build: Build, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = ring.create("broken", TERMS).text, ring.create("other", TERMS).text
    table = build()
    damage(store, "keys/broken/000002.json")
    ring.revoke("other")
    table.follow()
    table.follow()
    assert table.access_of(broken).key == "broken"
    refusal(table, other)
    assert len(caplog.records) == 1


def test_a_first_key_that_cannot_be_read_closes_the_server(store: Store, build: Build) -> None:
    table = build()
    damage(store, "keys/team/000001.json")
    table.follow()
    assert table.in_force
    refusal(table, None)


def test_neither_secrets_nor_hashes_are_shown(build: Build, ring: KeyRing) -> None:
    issued = ring.create("team", TERMS)
    table = build()
    shown = f"{table!r} {vars(table)}"
    hidden = [issued.text.rpartition("_")[2], issued.record.secrets[0].digest, issued.record.secrets[0].salt]
    assert not any(part in shown for part in hidden)
    assert issued.record.key in shown


class Counting(MemoryFileSystem):
    """`memory://` that notes the requests."""

    protocol = "counting"
    requests: list[str] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(f"/{path.split('://', 1)[-1]}"))

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.requests.append("list")
        return super().find(path, *arguments, **options)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.requests.append("read")
        return super().cat_file(path, *arguments, **options)


def test_a_look_at_a_remote_store_is_one_listing_and_what_has_changed(tmp_path: Path) -> None:
    fsspec.register_implementation(Counting.protocol, Counting, clobber=True)
    ring = KeyRing(Store.open(f"counting://{tmp_path.name}", cache=tmp_path / "cache"))
    for name in ("a", "b", "c"):
        ring.create(name, TERMS)
    table = KeyTable(KeyRing(Store.open(f"counting://{tmp_path.name}", cache=tmp_path / "other")))
    Counting.requests.clear()
    table.look()
    assert Counting.requests == ["list"]
    text = ring.rotate("b").text
    Counting.requests.clear()
    table.look()
    assert Counting.requests == ["list", "read"]
    assert table.access_of(text).key == "b"
