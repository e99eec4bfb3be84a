"""Sums of ledgers."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loraloom.server.errors import InvalidSettings
from loraloom.server.observe.ledger import Ledger
from loraloom.server.observe.usage import Span, adapter_of, moment, summed
from tests.server.observe.conftest import Ended

LINE = {
    "id": "r", "key": "a", "model": "sql@4", "path": "/v1/completions", "prompt": 10, "cached": 2, "output": 5,
    "estimated": False, "began": "2026-01-31T23:59:59.999Z", "seconds": 1.5, "edge": 0.25, "engine": None,
    "status": 200, "ending": "answered",
}  # fmt: skip


def book(folder: Path, day: str, *lines: dict[str, Any], process: int = 1) -> Path:
    path = folder / f"usage-some-host-{process}-{day}-0001.jsonl"
    path.write_text("".join(json.dumps(LINE | line) + "\n" for line in lines))
    return path


def test_what_the_ledger_writes_is_what_is_read(tmp_path: Path, ended: Ended) -> None:
    ledger = Ledger(tmp_path)
    for key in ("team-a", "team-b", "team-a"):
        ledger.add(ended(key=key))
    ledger.close()
    usage = summed(tmp_path, ["key"])
    assert {group: (found.requests, found.prompt, found.output) for group, found in usage.sums.items()} == {
        ("team-a",): (2, 24, 8),
        ("team-b",): (1, 12, 4),
    }
    assert usage.torn == 0


def test_everything_adds_up(tmp_path: Path) -> None:
    book(tmp_path, "20260131", {}, {"estimated": True, "engine": 0.5}, {"edge": None})
    (found,) = summed(tmp_path, []).sums.values()
    assert (found.requests, found.prompt, found.cached, found.output, found.estimated) == (3, 30, 6, 15, 1)
    assert (found.seconds, found.edge, found.engine) == (4.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("by", "group"),
    [
        (["model"], ("org/sql@4~0.8",)),
        (["adapter", "key"], ("org/sql", "a")),
        (["month", "day", "hour"], ("2026-01", "2026-01-31", "2026-01-31T23")),
        (["path", "status", "ending"], ("/v1/completions", "200", "answered")),
    ],
)
def test_groups(tmp_path: Path, by: list[str], group: tuple[str, ...]) -> None:
    book(tmp_path, "20260131", {"model": "org/sql@4~0.8"})
    assert list(summed(tmp_path, by).sums) == [group]


def test_a_group_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="by 'colour', but by key, adapter"):
        summed(tmp_path, ["colour"])


@pytest.mark.parametrize("model", ["0.6*sql@4+0.4*date@1", "svd(rank=8):0.5*a@1+b@2", "SmolLM2-135M"])
def test_mixtures_and_base_models_are_called_what_they_are(model: str) -> None:
    assert adapter_of(model) == model


def test_only_what_began_within_the_time_and_is_of_the_key(tmp_path: Path) -> None:
    began = [
        "2026-01-30T12:00:00.000Z",
        "2026-01-31T00:00:00.000Z",
        "2026-01-31T23:59:59.999Z",
        "2026-02-01T00:00:00.000Z",
    ]
    book(tmp_path, "20260201", *({"began": each} for each in began), {"key": "b"})
    span = Span(datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), "a")
    (found,) = summed(tmp_path, [], span).sums.values()
    assert found.requests == 2


def test_files_from_before_are_not_even_opened(tmp_path: Path) -> None:
    book(tmp_path, "20260130", {"began": "2026-01-30T00:00:00.000Z"}).write_bytes(b"not a line\n")
    book(tmp_path, "20260131", {})
    usage = summed(tmp_path, [], Span(datetime(2026, 1, 31, tzinfo=UTC)))
    assert usage.torn == 0
    assert len(usage.sums) == 1


def test_files_are_of_days_in_utc_wherever_the_time_is_said(tmp_path: Path) -> None:
    book(tmp_path, "20260131", {"began": "2026-01-31T23:30:00.000Z"})
    assert summed(tmp_path, [], Span(moment("2026-02-01T01:00+02:00"))).sums[()].requests == 1
    assert summed(tmp_path, [], Span(moment("2026-02-01T02:00+02:00"))).sums == {}


def test_torn_lines_are_counted_and_the_others_read(tmp_path: Path) -> None:
    whole = json.dumps(LINE)
    path = book(tmp_path, "20260131", {}, {})
    path.write_text(path.read_text() + whole[:100])
    book(tmp_path, "20260131", {}, process=2)
    (tmp_path / "notes.txt").write_text("not a ledger")
    usage = summed(tmp_path, [])
    assert usage.torn == 1
    assert usage.sums[()].requests == 3


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = book(tmp_path, "20260131", {}, {})
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert summed(tmp_path, []).sums[()].requests == 2


@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: data[:-20] + b"\xff" * 12 + data[-8:]])
def test_of_a_compressed_file_that_is_damaged_what_can_be_read_counts(
    tmp_path: Path, harm: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = book(tmp_path, "20260131", *({"id": f"{number * 7919:x}" * 9} for number in range(600)))
    Path(f"{path}.gz").write_bytes(harm(gzip.compress(path.read_bytes())))
    path.unlink()
    book(tmp_path, "20260201", {})
    usage = summed(tmp_path, ["day"])
    assert 200 < usage.sums["2026-01-31",].requests <= 601
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{path.name}.gz is damaged" in caplog.text


def test_moments() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert moment("2026-01-31T12:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert moment("36h", now) == now - timedelta(hours=36)
    assert moment("30d", now) == datetime(2026, 1, 30, tzinfo=UTC)
    with pytest.raises(InvalidSettings, match="'tomorrow' is no time"):
        moment("tomorrow")
