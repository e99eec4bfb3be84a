"""What a store promises, the same for a folder, for memory:// and for S3."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.errors import (
    AdapterNotFound,
    BaseMismatch,
    DamagedBlob,
    DamagedRecord,
    InvalidAdapter,
    InvalidName,
    NameTaken,
    StoreError,
    VersionNotFound,
)
from loraloom.adapters.names import Adapter, Digest, Tag
from loraloom.adapters.normal import digest_of
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import Record
from tests.adapters.small_adapters import small_adapter

OpenStore = Callable[[], Store]


@pytest.fixture(params=["folder", "memory", "s3"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens one and the same store anew each time, as another process would, with a cache of its own."""
    urls = {
        "folder": lambda: str(tmp_path / "store"),
        "memory": lambda: f"memory://{tmp_path.name}",
        "s3": lambda: f"{request.getfixturevalue('s3_url')}/some/prefix",
    }
    url, opened = urls[request.param](), []

    def open_one() -> Store:
        opened.append(Store.open(url, cache=tmp_path / f"cache{len(opened)}"))
        return opened[-1]

    return open_one


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    return [small_adapter(tmp_path / f"given{seed}", seed) for seed in range(4)]


def values(store: Store, name: str, tag: str) -> list[int]:
    return [move.version for move in store.tag_history(name, tag)]


def test_a_new_store_is_empty(open_store: OpenStore) -> None:
    store = open_store()
    assert store.names() == []
    assert store.verify() == []
    with pytest.raises(AdapterNotFound):
        store.resolve(Adapter("sql"))


def test_publication_is_seen_by_everyone_at_once(open_store: OpenStore, adapters: list[Path]) -> None:
    store, other = open_store(), open_store()
    published = store.publish(adapters[0], "org/Sql", tag="stable", by="ann", provenance={"run": [1, "ü"]})
    assert published.created
    for each in (store, other, open_store()):
        assert each.names() == ["org/Sql"]
        assert each.versions("org/Sql") == [published.version]
        assert each.tags("org/Sql") == {"latest": 1, "stable": 1}
    version = published.version
    assert (version.number, version.name, version.rank, version.by) == (1, "org/Sql", 2, "ann")
    assert (version.base, version.base_name, version.tags) == (None, "tiny", ("latest", "stable"))
    assert version.provenance == {"run": [1, "ü"]}


def test_the_stored_folder_holds_the_normal_form(open_store: OpenStore, adapters: list[Path]) -> None:
    version = open_store().publish(adapters[0], "sql").version
    reader = open_store()
    with reader.leased(version.digest) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
        assert digest_of(folder) == version.digest
        assert all(path.stat().st_mode & 0o777 == 0o444 for path in folder.iterdir())
    assert reader.folder(version.digest) == folder
    assert reader.manifest(version.digest).rank == version.rank
    reader.check(version.digest)


def test_numbers_count_up_and_latest_follows(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    assert [store.publish(folder, "sql").version.number for folder in adapters] == [1, 2, 3, 4]
    assert values(store, "sql", "latest") == [1, 2, 3, 4]
    assert store.resolve(Adapter("sql")).number == 4


def test_the_same_content_is_one_version(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    first = store.publish(adapters[0], "sql", by="ann").version
    store.publish(adapters[1], "sql")
    again = open_store().publish(adapters[0], "sql", by="bob", base_name="other", provenance={"a": 1})
    assert (again.version, again.created) == (first, False)
    assert store.tags("sql") == {"latest": 2}
    assert open_store().publish(adapters[0], "sql", tag="stable").version == first
    assert open_store().tags("sql") == {"latest": 2, "stable": 1}
    assert store.publish(adapters[0], "date").created


def test_who_and_when_do_not_change_the_digest(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    digests = {store.publish(adapters[0], f"sql{n}", by=str(n), provenance={"n": n}).version.digest for n in range(3)}
    assert len(digests) == 1


def test_selection_by_number_tag_and_digest(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    one, two = (store.publish(folder, "sql").version for folder in adapters[:2])
    store.tag("sql", "stable", 1)
    assert store.resolve(Adapter("sql", 1)) == one
    assert store.resolve(Adapter("sql", Tag("stable"))) == one
    assert store.resolve(Adapter("sql", Digest(two.digest[:8]))) == two
    assert store.resolve(Adapter("sql", Digest(two.digest))) == two


def test_a_digest_is_looked_for_under_its_name_only(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    digest = store.publish(adapters[0], "sql").version.digest
    store.publish(adapters[1], "date")
    with pytest.raises(VersionNotFound):
        store.resolve(Adapter("date", Digest(digest[:12])))


@pytest.mark.parametrize("version", [2, Tag("stable"), Digest("0" * 8)])
def test_what_a_name_has_is_told_on_a_miss(open_store: OpenStore, adapters: list[Path], version: object) -> None:
    store = open_store()
    store.publish(adapters[0], "sql")
    with pytest.raises(VersionNotFound) as caught:
        store.resolve(Adapter("sql", version))  # type: ignore[arg-type]
    assert caught.value.nearest == ("1", "latest")
    assert caught.value.version == str(version)


def test_the_nearest_names_are_told_on_a_miss(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for name in ("sql-small", "sql-Smart", "dates", "sql-gone"):
        store.publish(adapters[0], name)
    store.remove("sql-gone")
    with pytest.raises(AdapterNotFound) as caught:
        store.resolve(Adapter("sql-smal"))
    assert caught.value.nearest == ("sql-small", "sql-Smart")


def test_every_change_has_another_number(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    changes: list[Callable[[], object]] = [
        lambda: store.publish(adapters[0], "sql"),
        lambda: store.publish(adapters[1], "sql"),
        lambda: store.tag("sql", "stable", 1),
        lambda: store.tag("sql", "stable", 2),
        lambda: store.rollback("sql", "stable"),
        lambda: store.remove("sql", 2),
    ]
    seen = {store.changes}
    for change in changes:
        change()
        assert store.changes not in seen
        seen.add(store.changes)
    before = store.changes
    store.resolve(Adapter("sql"))
    open_store().publish(adapters[2], "sql")
    assert store.changes == before


def test_names_differ_by_more_than_case(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    store.publish(adapters[0], "org/Sql")
    with pytest.raises(NameTaken) as taken:
        store.publish(adapters[1], "Org/sql")
    assert taken.value.existing == "org/Sql"
    with pytest.raises(AdapterNotFound) as caught:
        store.resolve(Adapter("org/sql"))
    assert caught.value.nearest == ("org/Sql",)
    for call in (store.versions, store.tags, store.remove, store.verify):
        with pytest.raises(AdapterNotFound):
            call("ORG/SQL")
    assert values(store, "org/Sql", "latest") == [1]


def test_names_of_one_and_two_parts_do_not_meet(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for number, name in enumerate(("a", "a/b", "a.b", "a-b")):
        store.publish(adapters[number], name)
    assert store.names() == ["a", "a-b", "a.b", "a/b"]
    assert len({store.resolve(Adapter(name)).digest for name in store.names()}) == 4


def test_tags_move_and_remember(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for folder in adapters[:3]:
        store.publish(folder, "sql")
    for number in (1, 3, 2):
        assert store.tag("sql", "stable", number).version == number
    assert open_store().tags("sql") == {"latest": 3, "stable": 2}
    assert values(open_store(), "sql", "stable") == [1, 3, 2]


def test_a_tag_that_stands_there_already_is_left_alone(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    store.publish(adapters[0], "sql")
    first = store.tag("sql", "stable", 1)
    assert open_store().tag("sql", "stable", 1) == first
    assert store.tag_history("sql", "stable") == [first]


def test_a_tag_needs_a_version(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    with pytest.raises(AdapterNotFound):
        store.tag("sql", "stable", 1)
    store.publish(adapters[0], "sql")
    with pytest.raises(VersionNotFound):
        store.tag("sql", "stable", 2)
    assert store.tags("sql") == {"latest": 1}


def test_rollback_goes_further_back_each_time(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for folder in adapters:
        store.publish(folder, "sql")
    for number in (1, 2, 3):
        store.tag("sql", "stable", number)
    assert [open_store().rollback("sql", "stable").version for _ in range(2)] == [2, 1]
    with pytest.raises(VersionNotFound, match="no earlier version"):
        store.rollback("sql", "stable")
    assert store.tags("sql")["stable"] == 1
    assert values(open_store(), "sql", "stable") == [1, 2, 3, 2, 1]


def test_rollback_after_a_new_move_undoes_that_move_first(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for folder in adapters:
        store.publish(folder, "sql")
    for number in (1, 2):
        store.tag("sql", "stable", number)
    store.rollback("sql", "stable")
    store.tag("sql", "stable", 4)
    assert store.rollback("sql", "stable").version == 1
    with pytest.raises(VersionNotFound, match="no earlier version"):
        store.rollback("sql", "stable")


def test_rollback_passes_over_removed_versions(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for folder in adapters[:3]:
        store.publish(folder, "sql")
    store.remove("sql", 2)
    assert store.rollback("sql", "latest").version == 1


def test_rollback_of_an_unknown_tag(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    store.publish(adapters[0], "sql")
    with pytest.raises(VersionNotFound) as caught:
        store.rollback("sql", "stable")
    assert caught.value.nearest == ("1", "latest")


def test_tags_of_a_removed_version_fall_back(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for folder, tag in zip(adapters[:3], (None, "stable", "new"), strict=True):
        store.publish(folder, "sql", tag=tag)
    store.tag("sql", "stable", 3)
    removed = open_store().remove("sql", 3)
    assert (removed.name, removed.versions) == ("sql", (3,))
    assert removed.tags == {"latest": 2, "new": None, "stable": 2}
    after = open_store()
    assert after.tags("sql") == {"latest": 2, "stable": 2}
    assert [version.number for version in after.versions("sql")] == [1, 2]
    assert values(after, "sql", "stable") == [2, 3]
    with pytest.raises(VersionNotFound):
        after.resolve(Adapter("sql", 3))
    with pytest.raises(VersionNotFound):
        after.remove("sql", 3)


def test_numbers_are_not_used_again_after_removal(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    for folder in adapters[:2]:
        store.publish(folder, "sql", tag="stable")
    assert store.remove("sql").versions == (1, 2)
    assert open_store().names() == []
    with pytest.raises(AdapterNotFound):
        store.resolve(Adapter("sql"))
    again = open_store().publish(adapters[0], "SQL")
    assert (again.version.number, again.created) == (3, True)
    assert open_store().names() == ["SQL"]
    assert open_store().tags("SQL") == {"latest": 3}


def test_the_files_given_are_kept_as_given(open_store: OpenStore, adapters: list[Path], tmp_path: Path) -> None:
    store = open_store()
    (adapters[0] / "optimizer.pt").write_bytes(b"\x80not read")
    version = store.publish(adapters[0], "sql").version
    if store.local:
        kept = tmp_path / "store/originals" / version.original
        assert sorted(path.name for path in kept.iterdir()) == [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        assert all((kept / path.name).read_bytes() == (adapters[0] / path.name).read_bytes() for path in kept.iterdir())
    assert store.verify() == []
    (adapters[0] / "README.md").write_text("Other words about the same adapter.")
    other = store.publish(adapters[0], "other").version
    assert (other.digest == version.digest, other.original == version.original) == (True, False)


def test_a_base_is_checked_and_remembered(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    path = "model.layers.0.self_attn.q_proj"
    base = BaseFingerprint(MappingProxyType({path: (8, 8)}), None)
    wide = replace(base, modules=MappingProxyType({path: (8, 16)}))
    with pytest.raises(BaseMismatch):
        store.publish(adapters[0], "sql", base=wide)
    assert open_store().names() == []
    assert store.publish(adapters[0], "sql", base=base, base_name="tiny-8").version.base == base.digest
    assert store.resolve(Adapter("sql")).base_name == "tiny-8"


def test_refused_adapters_leave_nothing_behind(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    zero = small_adapter(tmp_path / "zero", scale=0.0)
    for folder in (tmp_path / "absent", zero):
        with pytest.raises(InvalidAdapter):
            store.publish(folder, "sql")
    linked = small_adapter(tmp_path / "linked")
    shutil.move(linked / "README.md", tmp_path / "secret")
    (linked / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidAdapter, match="symbolic link"):
        store.publish(linked, "sql")
    assert open_store().names() == []
    assert open_store().verify() == []
    assert store.publish(zero, "sql", allow_noop=True).created


@pytest.mark.parametrize("name", ["", "../sql", "a/b/c", "/sql", "a\0b", "a!b", "a/tags", "x" * 65])
def test_bad_names_are_refused_everywhere(open_store: OpenStore, adapters: list[Path], name: str) -> None:
    store = open_store()
    for call in (store.versions, store.tags, store.remove, store.verify):
        with pytest.raises(InvalidName):
            call(name)
    with pytest.raises(InvalidName):
        store.publish(adapters[0], name)
    with pytest.raises(InvalidName):
        store.tag(name, "stable", 1)


@pytest.mark.parametrize("tag", ["../x", "7", "a/b", "a\0b"])
def test_bad_tags_are_refused_everywhere(open_store: OpenStore, adapters: list[Path], tag: str) -> None:
    store = open_store()
    store.publish(adapters[0], "sql")
    for call in (
        lambda: store.tag("sql", tag, 1),
        lambda: store.rollback("sql", tag),
        lambda: store.tag_history("sql", tag),
        lambda: store.publish(adapters[1], "sql", tag=tag),
    ):
        with pytest.raises(InvalidName):
            call()
    assert open_store().tags("sql") == {"latest": 1}
    assert len(store.versions("sql")) == 1


def test_an_unknown_digest(open_store: OpenStore) -> None:
    store = open_store()
    for call in (store.folder, store.check, store.manifest, store.acquire):
        with pytest.raises(DamagedBlob):
            call("0" * 64)


def test_a_removed_adapter_becomes_garbage_and_no_fault(open_store: OpenStore, adapters: list[Path]) -> None:
    store = open_store()
    kept, gone = (store.publish(folder, "sql").version for folder in adapters[:2])
    store.remove("sql", gone.number)
    findings = open_store().verify()
    assert {(each.kind, each.path) for each in findings} == {
        ("garbage", f"blobs/{gone.digest}"),
        ("garbage", f"originals/{gone.original}"),
        ("garbage", f"facts/{gone.digest}"),
    }
    assert open_store().verify("sql") == []
    assert open_store().folder(kept.digest).is_dir()


def test_a_store_that_must_exist(tmp_path: Path, s3_url: str) -> None:
    for url in (tmp_path / "none", f"memory://{tmp_path.name}-none", f"{s3_url}/none", "s3://no-such-bucket-1f2e3d"):
        with pytest.raises(StoreError):
            Store.open(url, cache=tmp_path / "cache", create=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("url", ["nothing://x/y", "s3://no-such-bucket-1f2e3d"])
def test_a_place_that_cannot_be_used(s3_endpoint: str, url: str, tmp_path: Path, adapters: list[Path]) -> None:
    with pytest.raises(StoreError, match=url):
        Store.open(url, cache=tmp_path / "cache").publish(adapters[0], "sql")


def test_a_store_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"layout": 2}')
    with pytest.raises(StoreError, match="Upgrade"):
        Store.open(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path)


def test_listing_needs_no_heavy_package(tmp_path: Path, adapters: list[Path]) -> None:
    Store.open(tmp_path / "store").publish(adapters[0], "sql")
    program = """
import sys
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
store = Store.open(sys.argv[1])
store.resolve(Adapter(store.names()[0]))
print(sorted({"torch", "transformers", "huggingface_hub", "fsspec", "s3fs", "numpy", "pydantic"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_a_file_url_is_a_folder(tmp_path: Path, adapters: list[Path]) -> None:
    store = Store.open(f"file://{tmp_path}/store")
    store.publish(adapters[0], "sql")
    assert (store.local, store.url) == (True, f"{tmp_path}/store")
    assert Store.open(tmp_path / "store", create=False).names() == ["sql"]


def test_records_of_other_kinds_have_folders_of_their_own(open_store: OpenStore) -> None:
    record = Record(number=1)
    assert open_store().journal().append("others/one", record)
    assert not open_store().journal().append("others/one", Record(number=1))
    journal = open_store().journal()
    assert journal.numbers("others/one") == [1]
    assert journal.get("others/one", 1, Record) == record


def test_a_damaged_record_hides_its_own_name_only(
    tmp_path: Path, adapters: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(("date", "sql")):
        Store.open(tmp_path / "store").publish(adapters[number], name)
    record = tmp_path / "store/names/sql/versions/000001.json"
    record.chmod(0o644)
    record.write_bytes(b"\x00")
    store = Store.open(tmp_path / "store")
    for _ in range(2):
        assert store.names() == ["date"]
    with pytest.raises(AdapterNotFound, match="'date'"):
        store.resolve(Adapter("data"))
    with pytest.raises(DamagedRecord):
        store.resolve(Adapter("sql"))
    assert [message for message in caplog.messages if "names/sql" in message] == caplog.messages[:1]
