"""Pins: what is pinned, for how long, and in which order."""

import itertools
import multiprocessing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from loraloom.adapters.errors import AdapterNotFound, StoreError, VersionNotFound
from loraloom.adapters.names import Adapter, parse_adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store import records as store_records
from tests.adapters.small_adapters import small_adapter
from tests.adapters.store.test_crash import open_with
from tests.adapters.store.watched_disk import UnsyncedDisk, WatchedDisk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """`sql` with two versions, "stable" at the first, and `org/date` with one."""
    store = open_with(UnsyncedDisk(), tmp_path / "store")
    given = [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(3)]
    store.publish(given[0], "sql", tag="stable")
    store.publish(given[1], "sql")
    store.publish(given[2], "org/date")
    return store


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second later at each look."""
    seconds = itertools.count()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    clock = SimpleNamespace(now=lambda zone: start + timedelta(seconds=next(seconds)))
    monkeypatch.setattr(store_records, "datetime", clock)


def pins(store: Store) -> list[str]:
    return [str(adapter) for adapter in store.pins()]


def test_nothing_is_pinned_at_first(store: Store) -> None:
    assert store.pins() == store.pins_of("sql") == []


def test_pins_are_selections_the_oldest_first(store: Store) -> None:
    for text in ("sql@stable", "org/date", "sql", "sql@2", "sql@sha256:" + store.versions("sql")[0].digest[:8]):
        assert store.pin(parse_adapter(text))
    digest = f"sql@sha256:{store.versions('sql')[0].digest[:8]}"
    assert pins(store) == ["sql@stable", "org/date", "sql", "sql@2", digest]
    assert [str(adapter) for adapter in store.pins_of("sql")] == ["sql@stable", "sql", "sql@2", digest]
    assert pins(Store.open(store.url)) == pins(store)


def test_pinning_twice_changes_nothing(store: Store) -> None:
    assert store.pin(Adapter("sql"))
    assert not store.pin(Adapter("sql"))
    assert not store.pin(parse_adapter("sql@latest"))
    assert pins(store) == ["sql"]
    assert len(list(Path(store.url, "pins/sql").iterdir())) == 1


def test_unpinning(store: Store) -> None:
    store.pin(Adapter("sql"))
    store.pin(Adapter("sql", 1))
    assert store.unpin(Adapter("sql"))
    assert not store.unpin(Adapter("sql"))
    assert not store.unpin(Adapter("sql", 2))
    assert pins(store) == ["sql@1"]
    assert store.unpin(Adapter("sql", 1))
    assert pins(store) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [("sqk", AdapterNotFound), ("sql@9", VersionNotFound), ("sql@nightly", VersionNotFound), ("SQL", AdapterNotFound)],
)
def test_only_what_there_is_can_be_pinned(store: Store, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        store.pin(parse_adapter(text))
    assert pins(store) == []


def test_only_a_name_that_there_is_can_be_unpinned(store: Store) -> None:
    with pytest.raises(AdapterNotFound, match="Did you mean 'sql'"):
        store.unpin(Adapter("sqk"))


def test_a_pin_outlives_its_version_but_not_its_name(store: Store, tmp_path: Path) -> None:
    store.pin(Adapter("sql"))
    store.pin(Adapter("sql", 2))
    store.remove("sql", 2)
    assert pins(store) == ["sql", "sql@2"]
    store.remove("sql", 1)
    assert pins(store) == []
    assert store.pins_of("sql") == []
    store.publish(small_adapter(tmp_path / "again", 7), "sql")
    assert pins(store) == []
    store.pin(Adapter("sql"))
    assert pins(store) == ["sql"]
    store.remove("sql")
    assert pins(store) == []


def test_a_removal_of_an_older_release_ends_nothing(store: Store) -> None:
    """It did not say whether it was the last."""
    record = store_records.RemovalRecord(number=1, versions=(1,))
    data = store_records.encode(record).replace(b'"last": false', b'"later": 7')
    assert store_records.decode(store_records.RemovalRecord, data) == record
    assert "last" in asdict(record)


def test_a_damaged_record_is_found(store: Store) -> None:
    store.pin(Adapter("sql"))
    (record,) = Path(store.url, "pins/sql").iterdir()
    record.chmod(0o644)
    record.write_bytes(b"{")
    again = Store.open(store.url)
    assert [(finding.kind, finding.path) for finding in again.verify()] == [("damaged", "pins/sql/000001.json")]
    with pytest.raises(StoreError, match="damaged"):
        again.pins()


def test_a_store_with_pins_is_whole(store: Store) -> None:
    store.pin(Adapter("sql"))
    assert store.verify() == []


class Overtaken(WatchedDisk):
    """Another server pins a version of its own after each of the first looks at what is pinned."""

    def __init__(self, url: str, versions: list[str]) -> None:
        self.url = url
        self.versions = versions

    def after(self, call: str, *arguments: object) -> None:
        if call in ("list", "read") and "/pins/" in str(arguments[0]) and self.versions:
            open_with(UnsyncedDisk(), Path(self.url)).pin(parse_adapter(f"sql@{self.versions.pop()}"))


@pytest.mark.parametrize("others", [1, 2, 3, 4])
def test_a_pin_that_comes_between_two_looks_is_not_lost(store: Store, others: int) -> None:
    """Wherever in a change it comes: the change counts from what its number stands after."""
    tags = [f"tag-{number}" for number in range(others)]
    for tag in tags:
        store.tag("sql", tag, 1)
    store.pin(Adapter("sql"))
    overtaken = Overtaken(store.url, list(tags))
    assert open_with(overtaken, Path(store.url)).pin(parse_adapter("sql@1"))
    assert not overtaken.versions
    assert set(pins(store)) == {"sql", "sql@1", *(f"sql@{tag}" for tag in tags)}


def pin_many(url: str, versions: list[str]) -> None:
    store = Store.open(url)
    for version in versions:
        store.pin(parse_adapter(f"sql@{version}"))


def test_pins_of_several_processes_at_once_all_count(store: Store) -> None:
    tags = [[f"tag-{process}-{number}" for number in range(6)] for process in range(3)]
    for tag in (tag for each in tags for tag in each):
        store.tag("sql", tag, 1)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=pin_many, args=(store.url, each)) for each in tags]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert set(pins(store)) == {f"sql@{tag}" for each in tags for tag in each}
