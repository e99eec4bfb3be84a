from pathlib import Path

import pytest

from loraloom.compose.report.page import page
from loraloom.compose.report.picture import picture
from loraloom.compose.report.report import write_report
from loraloom.compose.result import result_from
from tests.compose.report.found import result_of, trials_of


def test_both_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    result, trials = result_of(), trials_of()
    html, png = write_report(result, trials, tmp_path)
    assert sorted(tmp_path.iterdir()) == [html, png] == [tmp_path / "report.html", tmp_path / "report.png"]
    assert html.read_text(encoding="utf-8") == page(result, trials)
    assert png.read_bytes() == picture(result, trials)


def test_writing_again_replaces_them(tmp_path: Path) -> None:
    write_report(result_of(effect=-0.3), trials_of(), tmp_path)
    html, _ = write_report(result_of(), trials_of(), tmp_path)
    assert "Not better" not in html.read_text(encoding="utf-8")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_result_that_was_read_back_gives_the_same_report(tmp_path: Path) -> None:
    result = result_of()
    html, _ = write_report(result_from(result.text()), trials_of(), tmp_path)
    assert html.read_text(encoding="utf-8") == page(result, trials_of())


def test_a_folder_that_cannot_be_written_keeps_its_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_report(result_of(), trials_of(), tmp_path / "gone")
