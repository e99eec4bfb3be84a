"""`loraloom audit …` on a real store."""

import json
import shutil
from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from loraloom.server.cli.parser import parse
from tests.server.cli.conftest import Loraloom


@pytest.fixture
def store(home: Path) -> Path:
    return home / ".local/share/loraloom/store"


@pytest.fixture
def changed(store: Path, adapters: list[Path]) -> Store:
    """A store with three entries: two publications and a tag."""
    opened = Store.open(store)
    opened.publish(adapters[0], "sql", tag="stable", by="ann")
    opened.publish(adapters[1], "date", by="ben")
    opened.tag("sql", "new", 1, by="ann")
    return opened


@pytest.fixture
def me(monkeypatch: pytest.MonkeyPatch) -> str:
    """Who runs the commands, also where the account has no name."""
    monkeypatch.setenv("LOGNAME", "me")
    return "me"


def test_the_list(loraloom: Loraloom, changed: Store) -> None:
    outcome = loraloom("audit", "list")
    assert outcome.status == 0
    head, *rows = [line.split() for line in outcome.out.splitlines()]
    assert head == ["NUMBER", "TIME", "BY", "ACTION", "SUBJECT"]
    assert [[row[0], *row[2:]] for row in rows] == [
        ["1", "ann", "publish", "sql", "version=1", "tags=latest,stable"],
        ["2", "ben", "publish", "date", "version=1", "tags=latest"],
        ["3", "ann", "tag", "sql", "tag=new", "version=1"],
    ]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--name", "sql"], [1, 3]),
        (["--action", "publish"], [1, 2]),
        (["--by", "ann", "--action", "tag"], [3]),
        (["--since", "1h"], [1, 2, 3]),
        (["--since", "2999-01-01"], []),
        (["--since", "2020-01-01T10:00"], [1, 2, 3]),
    ],
)
def test_a_part_of_the_list(loraloom: Loraloom, changed: Store, words: list[str], numbers: list[int]) -> None:
    found = json.loads(loraloom("audit", "list", "--json", *words).out)
    assert [entry["number"] for entry in found] == numbers


def test_a_time_that_is_none(loraloom: Loraloom, changed: Store) -> None:
    outcome = loraloom("audit", "list", "--since", "yesterday")
    assert (outcome.status, outcome.out) == (1, "")
    assert "yesterday" in outcome.err


def test_the_commands_tell_who_runs_them(loraloom: Loraloom, changed: Store, me: str) -> None:
    for line in (
        "tag sql other 1",
        "tag date stable 1",
        "pin sql",
        "unpin sql",
        "remove date",
    ):
        assert loraloom("adapters", *line.split()).status == 0
    found = json.loads(loraloom("audit", "list", "--json", "--by", me).out)
    assert [entry["action"] for entry in found] == ["tag", "tag", "pin", "unpin", "remove"]


def test_a_rollback_by_the_command(loraloom: Loraloom, changed: Store, adapters: list[Path], me: str) -> None:
    changed.publish(adapters[2], "sql")
    assert loraloom("adapters", "rollback", "sql", "latest").status == 0
    last = json.loads(loraloom("audit", "list", "--json").out)[-1]
    assert (last["action"], last["by"]) == ("rollback", me)


def test_what_nobody_touched_verifies_and_has_an_end(loraloom: Loraloom, changed: Store) -> None:
    outcome = loraloom("audit", "verify")
    count, head = outcome.out.splitlines()
    assert (outcome.status, count) == (0, "3 entries about 7 records, 0 findings")
    word, noted = head.split()
    assert word == "head"
    assert noted == str(changed.audit.check().head)
    assert loraloom("audit", "verify", "--head", noted).status == 0


def test_a_forged_end_is_found_by_the_noted_one(loraloom: Loraloom, changed: Store, store: Path) -> None:
    noted = str(changed.audit.check().head)
    path = store / "audit/000003.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"ann"', b'"eve"'))
    assert loraloom("audit", "verify").status == 0
    outcome = loraloom("audit", "verify", "--head", noted)
    assert outcome.status == 1
    assert outcome.out.startswith("log: audit/000003.json: it is not the one that was noted")


@pytest.mark.parametrize("text", ["3", "3:abc", "0:" + "0" * 64, ":" + "0" * 64])
def test_what_is_no_end(loraloom: Loraloom, changed: Store, text: str) -> None:
    outcome = loraloom("audit", "verify", "--head", text)
    assert (outcome.status, outcome.out) == (1, "")
    assert "NUMBER:HASH" in outcome.err


def test_a_store_from_before_the_log_is_taken_into_it(loraloom: Loraloom, changed: Store, store: Path) -> None:
    shutil.rmtree(store / "audit")
    (store / "store.json").chmod(0o644)
    (store / "store.json").write_text('{"layout": 1}')
    outcome = loraloom("audit", "verify")
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        "6 records are from before the log began: `loraloom audit adopt` takes them into it",
        "0 entries about 0 records, 0 findings",
    ]
    assert loraloom("audit", "adopt").out == "6 records taken into the log\n"
    assert "1 entries about 7 records, 0 findings" in loraloom("audit", "verify").out


def test_a_record_that_is_gone_is_told(loraloom: Loraloom, changed: Store, store: Path) -> None:
    (store / "names/sql/tags/new/000001.json").unlink()
    outcome = loraloom("audit", "verify")
    assert outcome.status == 1
    assert outcome.out.splitlines()[0] == "record: names/sql/tags/new/000001.json: it is missing"


@pytest.mark.parametrize("line", ["audit list", "audit verify", "audit adopt"])
def test_each_takes_the_store(line: str) -> None:
    assert parse([*line.split(), "--adapters", "s3://bucket"]).options.adapters == "s3://bucket"
