"""The table says what was measured, and of equal conversions the last."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from .kinds_table import Row, read_rows, table

ROW = Row(
    label="DoRA",
    rank=64,
    chosen=False,
    exact=False,
    relative_error=0.2222,
    kl=8.6e-5,
    base_kl=0.152,
    task_kl=1e-12,
    task_base_kl=0.44,
    task_top1=0.998,
    prompts=20,
    right_base=1,
    right_original=19,
    right_converted=18,
    seconds=30,
)


def test_a_row_is_a_line() -> None:
    lines = table([ROW]).splitlines()
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| DoRA | 64 (default) | 22% | 8.6e-05 | 0.15 | 0 | 0.44 | 99.8% | 1, 19, 18 of 20 |"


def test_what_is_exact_loses_nothing_and_plain_lora_was_not_measured() -> None:
    line = table([replace(ROW, exact=True, kl=None, base_kl=None)]).splitlines()[2]
    assert line.startswith("| DoRA | 64 | nothing | – | – | 0 |")


def test_rows_are_read_again_and_replaced(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, chosen=True), replace(ROW, right_converted=20)]
    (tmp_path / "rows").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    assert read_rows(tmp_path / "rows") == [rows[2], rows[1]]
