"""The note of what was in memory: whole or not there, and never in the way."""

from pathlib import Path

import pytest

from loraloom.adapters.store import Store
from loraloom.server.gate.note import Note
from loraloom.server.settings import Settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache/residents/note.json"


def test_what_is_written_is_read(path: Path) -> None:
    for names in (["sql@4", "org/date@1"], [], ["b@2"]):
        Note(path).write(names)
        assert Note(path).read() == names
    assert [file.name for file in path.parent.iterdir()] == ["note.json"]


def test_without_a_note_there_are_no_names(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Note(path).read() == []
    assert caplog.text == ""


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"{}", b'{"residents": 7}', b"\xff"])
def test_a_damaged_note_is_told(path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert Note(path).read() == []
    assert f"{path} cannot be read" in caplog.text


def test_what_is_no_name_is_left_out(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"residents": [7, "sql@1", null]}')
    assert Note(path).read() == ["sql@1"]


def test_a_note_that_cannot_be_written_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.parent.mkdir()
    path.parent.write_bytes(b"a file where a folder should be")
    Note(path).write(["sql@1"])
    assert f"{path} cannot be written" in caplog.text


def test_each_server_has_a_note_of_its_own(store: Store, tmp_path: Path) -> None:
    settings = Settings(model="tiny", cache=tmp_path / "cache", port=8000)
    notes = [
        Note.of(settings, store, "tiny"),
        Note.of(settings, store, "other"),
        Note.of(settings.model_copy(update={"port": 8001}), store, "tiny"),
    ]
    for number, note in enumerate(notes):
        note.write([f"sql@{number + 1}"])
    assert [note.read() for note in notes] == [["sql@1"], ["sql@2"], ["sql@3"]]
    assert Note.of(settings, store, "tiny").read() == ["sql@1"]
