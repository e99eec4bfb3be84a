"""`loraloom usage` on ledgers."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.server.cli.conftest import Loraloom
from tests.server.observe.test_usage import book


@pytest.fixture
def folder(home: Path) -> Path:
    """Where servers keep their ledgers when nobody says otherwise."""
    folder = home / ".local/share/loraloom/usage"
    folder.mkdir(parents=True)
    book(folder, "20260131", {}, {"key": "b", "model": "date@1"}, {"estimated": True, "model": "sql@5"})
    book(folder, "20260201", {"began": "2026-02-01T10:00:00.000Z"}, process=2)
    return folder


def test_a_table_by_key_and_adapter(loraloom: Loraloom, folder: Path) -> None:
    outcome = loraloom("usage")
    assert outcome.out.splitlines() == [
        "KEY    ADAPTER  REQUESTS  PROMPT  CACHED  OUTPUT  ESTIMATED  SECONDS  EDGE  ENGINE",
        "a      sql      3         30      6       15      1          4.5      0.8   0.0",
        "b      date     1         10      2       5       0          1.5      0.2   0.0",
        "total           4         40      8       20      1          6.0      1.0   0.0",
    ]
    assert (outcome.status, outcome.err) == (0, "")


def test_json_of_one_key_in_a_month(loraloom: Loraloom, folder: Path) -> None:
    outcome = loraloom(
        "usage", "--by", "model", "--key", "a", "--since", "2026-01-01", "--until", "2026-02-01", "--json"
    )
    found = json.loads(outcome.out)
    assert [(group["model"], group["requests"]) for group in found["groups"]] == [("sql@4", 1), ("sql@5", 1)]
    assert found["torn"] == 0


def test_csv_by_day(loraloom: Loraloom, folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(loraloom("usage", "--by", "day", "--csv").out)))
    assert [(row["day"], row["output"]) for row in rows] == [("2026-01-31", "15"), ("2026-02-01", "5")]


def test_one_sum_of_everything(loraloom: Loraloom, folder: Path) -> None:
    assert loraloom("usage", "--by", "").out.splitlines()[1].split()[:4] == ["4", "40", "8", "20"]


def test_lines_that_are_not_whole_are_told_of(loraloom: Loraloom, folder: Path) -> None:
    path = next(folder.iterdir())
    path.write_text(path.read_text() + '{"key": "a", "mod')
    assert "1 lines are not whole" in loraloom("usage").err


def test_another_folder(loraloom: Loraloom, tmp_path: Path) -> None:
    book(tmp_path, "20260131", {})
    assert "sql" in loraloom("usage", "--folder", tmp_path).out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--by", "colour"], "cannot be summed by 'colour'"),
        (["--since", "soon"], "'soon' is no time"),
        (["--folder", "/not/there"], "there is no usage ledger in /not/there"),
    ],
)
def test_what_does_not_fit(loraloom: Loraloom, folder: Path, words: list[str], reason: str) -> None:
    outcome = loraloom("usage", *words)
    assert outcome.status == 1
    assert reason in outcome.err


def test_no_ledger_by_the_settings(loraloom: Loraloom, home: Path) -> None:
    (home / "loraloom.yaml").write_text("usage: null\n")
    assert "so no ledger is kept" in loraloom("usage").err
