"""The store as one key sees it."""

from dataclasses import replace

import pytest

from loraloom.adapters.errors import AdapterNotFound, NameTaken, VersionNotFound
from loraloom.adapters.names import parse_adapter
from loraloom.adapters.store import Store
from loraloom.adapters.store.registry import Registry
from loraloom.server.access.access import ANYONE, Access, Role
from loraloom.server.access.patterns import Patterns
from loraloom.server.access.view import View
from loraloom.server.errors import Forbidden
from tests.server.conftest import Publish

TEAM = Access("team", Role.PUBLISH, Patterns.parse("team/*,public/*"), Patterns.parse("team/*"))
NAMES = ("other/sql", "public/sql", "team/date", "team/sql")


@pytest.fixture
def view(store: Store, publish: Publish) -> View:
    for name in NAMES:
        publish(name)
    return View(store, lambda: TEAM)


def message(view: View, text: str) -> str:
    with pytest.raises(AdapterNotFound) as refusal:
        view.resolve(parse_adapter(text))
    return str(refusal.value)


def test_it_lists_and_resolves_what_it_sees(view: View) -> None:
    assert view.names() == ["public/sql", "team/date", "team/sql"]
    assert view.resolve(parse_adapter("public/sql@1")).canonical == "public/sql@1"
    assert [record.canonical for record in view.versions("team/sql")] == ["team/sql@1"]
    assert view.tags("team/sql") == {"latest": 1}


def test_what_it_does_not_see_is_not_read_for_its_list(
    view: View, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    spelling = Registry._spelling

    def noting(registry: Registry, folder: str) -> str | None:
        read.append(folder)
        return spelling(registry, folder)

    monkeypatch.setattr(Registry, "_spelling", noting)
    assert view.names() == ["public/sql", "team/date", "team/sql"]
    assert sorted(read) == ["public!sql", "team!date", "team!sql"]
    assert View(store, lambda: ANYONE).names() == list(NAMES)


@pytest.mark.parametrize("version", ["", "@1", "@latest", "@7", "@sha256:00000000"])
def test_what_it_does_not_see_reads_as_what_does_not_exist(view: View, version: str) -> None:
    unseen, missing = message(view, f"other/sql{version}"), message(view, f"other/zql{version}")
    assert unseen.partition(" Did")[0].replace("other/sql", "other/zql") == missing.partition(" Did")[0]
    for look in (view.versions, view.tags):
        with pytest.raises(AdapterNotFound) as refusal:
            look("other/sql")
        assert str(refusal.value) == message(view, "other/sql")
        assert "other" not in str(refusal.value).partition("Did")[2]


def test_the_digest_of_what_it_does_not_see_opens_nothing(view: View, store: Store) -> None:
    digest = store.resolve(parse_adapter("other/sql")).digest
    with pytest.raises(VersionNotFound):
        view.resolve(parse_adapter(f"team/sql@sha256:{digest}"))
    with pytest.raises(AdapterNotFound):
        view.resolve(parse_adapter(f"other/sql@sha256:{digest}"))


def test_only_names_that_it_sees_are_proposed(view: View, store: Store) -> None:
    assert "'team/sql'" in message(view, "team/sqi")
    assert "other" not in message(view, "othe/sql")
    assert "'other/sql'" in message(View(store, lambda: ANYONE), "othe/sql")


def test_it_changes_what_it_may_and_is_told_of_nothing_else(view: View) -> None:
    view.check_may_publish("team/new")
    view.check_may_create("team/new")
    view.check_free("team/new")
    with pytest.raises(Forbidden, match="publishes under team/"):
        view.check_may_publish("public/sql")
    for name in ("other/sql", "other/none"):
        with pytest.raises(AdapterNotFound):
            view.check_may_publish(name)
        with pytest.raises(Forbidden):
            view.check_may_create(name)
        with pytest.raises(Forbidden):
            view.check_free(name)


def test_what_it_changes_is_changed_in_its_name(view: View, store: Store, publish: Publish) -> None:
    publish("team/sql")
    moved = view.tag("team/sql", "stable", 1)
    assert (moved.version, moved.by) == (1, "team")
    assert view.remove("team/sql", 1).versions == (1,)
    assert view.remove("team/sql", None).versions == (2,)
    for name, refusal in (("public/sql", Forbidden), ("other/sql", AdapterNotFound)):
        for change in (lambda name=name: view.tag(name, "stable", 1), lambda name=name: view.remove(name, None)):
            with pytest.raises(refusal):
                change()
    assert store.names() == ["other/sql", "public/sql", "team/date"]


def test_who_changes_what_is_not_there_is_told_of_what_it_sees_only(view: View, publish: Publish) -> None:
    publish("tean/sqm")
    for change in (lambda: view.tag("team/sqm", "stable", 1), lambda: view.remove("team/sqm", None)):
        with pytest.raises(AdapterNotFound) as refusal:
            change()
        assert "'team/sql'" in str(refusal.value)
        assert "tean" not in str(refusal.value)
    with pytest.raises(VersionNotFound):
        view.tag("team/sql", "stable", 9)


def test_how_a_name_that_it_does_not_see_is_spelled_is_not_told(view: View, publish: Publish) -> None:
    publish("Team/zql")
    publish("team/Seen")
    with pytest.raises(NameTaken) as refusal:
        view.check_free("team/zql")
    assert refusal.value.existing is None
    assert "Team" not in str(refusal.value)
    with pytest.raises(NameTaken, match="use 'team/Seen'"):
        view.check_free("team/seen")
    with pytest.raises(NameTaken) as refusal, view.publishing("team/zql"):
        publish("team/zql")
    assert refusal.value.existing is None


def test_a_key_that_publishes_nothing_is_told_so(store: Store) -> None:
    with pytest.raises(Forbidden, match="publishes nothing"):
        View(store, lambda: Access("k", Role.INFER, publish=Patterns(()))).check_may_create("a")


def test_it_goes_by_what_the_key_may_do_now(store: Store, publish: Publish) -> None:
    publish("team/sql")
    may = [TEAM]
    view = View(store, lambda: may[-1])
    view.check_may_create("team/date")
    may.append(replace(TEAM, publish=Patterns.parse("team/sql")))
    with pytest.raises(Forbidden):
        view.check_may_create("team/date")
    may.append(replace(TEAM, adapters=Patterns.parse("public/*"), publish=Patterns(())))
    assert view.names() == []


def test_whoever_plans_a_job_sees_no_more(view: View, store: Store) -> None:
    digest = view.resolve(parse_adapter("team/sql")).digest
    assert view.manifest(digest) == store.manifest(digest)


def test_what_others_are_called_is_not_even_looked_at(
    view: View, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that not even the time tells of them."""
    read: list[str] = []
    journal = store._registry._journal
    get = journal.get
    monkeypatch.setattr(journal, "get", lambda folder, *more: read.append(folder) or get(folder, *more))
    message(view, "other/sql")
    assert read
    assert not [folder for folder in read if "other" in folder]
