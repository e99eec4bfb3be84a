"""A folder is made whole, once, and made again when damaged or made from something else."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from loraloom.demo import folders

WEIGHTS = b"the weights"
SOURCE = {"package": "some==1"}


def write(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A finished folder."""
    folder = tmp_path / "models" / "demo"
    folders.make_once(folder, SOURCE, write, refuse)
    return folder


def refuse(_: object) -> None:
    raise AssertionError("a finished model was made again")


def test_default_folder_follows_xdg_cache_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert folders.default_folder("tiny") == Path("/cache/loraloom/models/tiny")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert folders.default_folder("tiny") == Path.home() / ".cache/loraloom/models/tiny"


def test_a_finished_folder_is_left_as_it_is(made: Path) -> None:
    folders.make_once(made, SOURCE, refuse, refuse)
    assert (made / "model.safetensors").read_bytes() == WEIGHTS


def test_the_marker_tells_the_source_and_every_file(made: Path) -> None:
    marker = json.loads((made / folders.MARKER).read_text())
    digest = folders.digest(made / "model.safetensors")
    assert marker == {**SOURCE, "files": {"model.safetensors": {"size": len(WEIGHTS), "sha256": digest}}}


Damage = Callable[[Path], None]


def _without_marker(folder: Path) -> None:
    (folder / folders.MARKER).unlink()


def _with_broken_marker(folder: Path) -> None:
    (folder / folders.MARKER).write_text('{"files": ')


def _with_a_list_for_a_marker(folder: Path) -> None:
    (folder / folders.MARKER).write_text("[]")


def _with_a_file_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1])


def _with_a_byte_changed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS.swapcase())


@pytest.mark.parametrize(
    "damage",
    [
        _without_marker,
        _with_broken_marker,
        _with_a_list_for_a_marker,
        _with_a_file_missing,
        _cut_short,
        _with_a_byte_changed,
    ],
)
def test_a_damaged_folder_is_made_anew(made: Path, damage: Damage) -> None:
    assert folders.is_whole(made, SOURCE)
    damage(made)
    assert not folders.is_whole(made, SOURCE)
    said: list[str] = []
    folders.make_once(made, SOURCE, write, said.append)
    assert said == [f"Replacing what is in {made}: it is damaged, or was made from something else"]
    assert folders.is_whole(made, SOURCE)
    assert [path.name for path in sorted(made.parent.iterdir())] == [".demo.lock", "demo"]


def test_a_folder_from_another_source_is_not_whole(made: Path) -> None:
    assert not folders.is_whole(made, {"package": "some==2"})
    assert not folders.is_whole(made, {**SOURCE, "healing": "0"})


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    """The maker's own error comes through; what a killed process left half-made is gone too."""
    target = tmp_path / "models" / "demo"
    (target.parent / ".demo.part" / "new").mkdir(parents=True)

    def fail(folder: Path) -> None:
        write(folder)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        folders.make_once(target, SOURCE, fail, refuse)
    assert [path.name for path in target.parent.iterdir()] == [".demo.lock"]


def _make(target: str, lines: "multiprocessing.Queue[str]") -> None:
    def count(folder: Path) -> None:
        lines.put("made")
        write(folder)

    folders.make_once(Path(target), SOURCE, count, lines.put)


def test_two_processes_make_a_folder_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    lines: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=_make, args=(str(tmp_path / "demo"), lines)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert lines.get(timeout=5) == "made"
    assert lines.empty()
