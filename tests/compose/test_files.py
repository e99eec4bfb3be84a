"""Files that are there whole."""

from pathlib import Path

import pytest

from loraloom.compose.files import write_whole


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for text in ("one", "zwölf"):
        write_whole(tmp_path / "result.json", text)
        assert (tmp_path / "result.json").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "result.json", "one")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "result.json", "two \ud800")
    assert (tmp_path / "result.json").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "result.json", "one")
