"""How the records under one name are read, those of unfinished publications included."""

from dataclasses import replace
from pathlib import Path

import pytest

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.store.history import History, folder_of
from loraloom.adapters.store.journal import Journal
from loraloom.adapters.store.objects import LocalObjects
from loraloom.adapters.store.records import RemovalRecord, TagRecord, VersionRecord

FOLDER = "names/sql"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(LocalObjects(tmp_path))


def version(number: int, digest: str = "d") -> VersionRecord:
    return VersionRecord(number=number, name="sql", digest=digest, original="o", base=None, base_name=None, rank=1)


def move(number: int, to: VersionRecord, tag: str = "latest") -> TagRecord:
    return TagRecord(number=number, tag=tag, version=to.number, version_id=to.id, digest=to.digest)


def test_names_that_differ_by_case_share_a_folder() -> None:
    assert folder_of("Org/Sql") == folder_of("org/sQL") == "names/org!sql"
    assert folder_of("org.sql") != folder_of("org/sql")
    with pytest.raises(InvalidName):
        folder_of("../sql")


def test_a_move_counts_from_the_moment_its_version_is_there(journal: Journal) -> None:
    first, second = version(1), version(2)
    journal.append(f"{FOLDER}/tags/latest", move(1, first))
    journal.append(f"{FOLDER}/versions", first)
    journal.append(f"{FOLDER}/tags/latest", move(2, second))
    journal.append(f"{FOLDER}/tags/stable", move(1, second, "stable"))
    assert History(journal, FOLDER).tags() == {"latest": 1}
    assert History(journal, FOLDER).moves("stable") == []
    journal.append(f"{FOLDER}/versions", second)
    assert History(journal, FOLDER).tags() == {"latest": 2, "stable": 2}


def test_a_move_to_a_version_that_another_writer_took_does_not_count(journal: Journal) -> None:
    mine, other = version(1), version(1)
    journal.append(f"{FOLDER}/tags/latest", move(1, other))
    journal.append(f"{FOLDER}/tags/latest", move(2, mine))
    journal.append(f"{FOLDER}/versions", other)
    assert [each.number for each in History(journal, FOLDER).moves("latest")] == [1]
    assert History(journal, FOLDER).next_move("latest") == 3


def test_a_history_is_one_moment(journal: Journal) -> None:
    for number in (1, 2):
        journal.append(f"{FOLDER}/tags/latest", move(number, record := version(number)))
        journal.append(f"{FOLDER}/versions", record)
    history = History(journal, FOLDER)
    journal.append(f"{FOLDER}/tags/latest", move(3, third := version(3)))
    journal.append(f"{FOLDER}/versions", third)
    assert history.tags() == {"latest": 2}


def test_removed_versions_are_passed_over_but_keep_their_numbers(journal: Journal) -> None:
    for number in (1, 2, 3):
        journal.append(f"{FOLDER}/tags/latest", move(number, record := version(number, f"d{number}")))
        journal.append(f"{FOLDER}/versions", record)
    journal.append(f"{FOLDER}/removed", RemovalRecord(number=1, versions=(1, 3)))
    history = History(journal, FOLDER)
    assert (history.live, history.next_version, history.next_removal) == ([2], 4, 2)
    assert history.version(3) is None
    assert history.with_digest("d3") == []
    assert history.tags() == {"latest": 2}


def test_before_skips_what_has_been_rolled_back_and_what_is_the_same(journal: Journal) -> None:
    records = [version(number) for number in (1, 2, 3)]
    for record in records:
        journal.append(f"{FOLDER}/versions", record)
    moves = [move(1, records[0]), move(2, records[1]), move(3, records[1]), move(4, records[2])]
    moves.append(replace(move(5, records[1]), restores=3))
    for each in moves:
        journal.append(f"{FOLDER}/tags/latest", each)
    history = History(journal, FOLDER)
    assert history.value("latest") == moves[4]
    assert history.before(moves[4]) == moves[0]
    assert history.before(moves[0]) is None
