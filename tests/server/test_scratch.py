"""Folders of one process, also of a process that was killed."""

import subprocess
import sys
from pathlib import Path

from loraloom.server.scratch import Scratch

LEAVE_BEHIND = """
import os, sys
from pathlib import Path
from loraloom.server.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.folder / "file").write_text("left over")
print(scratch.folder, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""


def leave_behind(parent: Path, how: str) -> Path:
    """The folder of a process that has ended."""
    command = [sys.executable, "-c", LEAVE_BEHIND, str(parent), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=how != "killed")
    return Path(done.stdout.strip())


def test_the_folder_is_empty_and_of_its_own(tmp_path: Path) -> None:
    one, two = Scratch(tmp_path / "new" / "mixtures"), Scratch(tmp_path / "new" / "mixtures")
    assert one.folder != two.folder
    assert one.folder.parent == tmp_path / "new" / "mixtures"
    assert list(one.folder.iterdir()) == []


def test_the_folder_goes_when_it_is_closed_or_the_process_ends(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    (scratch.folder / "file").write_text("x")
    scratch.close()
    assert list(tmp_path.iterdir()) == []
    assert not leave_behind(tmp_path, "ended").exists()


def test_the_next_process_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    running = Scratch(tmp_path)
    (running.folder / "file").write_text("in use")
    left = leave_behind(tmp_path, "killed")
    assert (left / "file").is_file()
    (tmp_path / "notes.txt").write_text("of somebody else")
    after = Scratch(tmp_path)
    assert not left.exists()
    assert (running.folder / "file").read_text() == "in use"
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {
        running.folder.name,
        after.folder.name,
        "notes.txt",
    }
