"""Where mounts are permitted, each in a mount namespace of its own, so that none stays behind."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.disk import Disk

ALONE = ["unshare", "--mount", "--propagation", "private"]
REPOSITORY = Path(__file__).parents[2]


def may_mount() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*ALONE, "true"], check=False).returncode == 0


SCRIPT = """
import sys, time
from pathlib import Path
from tests.faults.disk import mounted
from tests.faults.errors import CannotInject
from tests.faults.slowness import slowed

def fails():
    try:
        (disk.store / "new").write_bytes(b"a" * 9000)
    except OSError as error:
        return error.strerror
    (disk.store / "new").unlink()

with mounted(Path(sys.argv[1]), "1m") as disk:
    disk.store.mkdir()
    (disk.store / "kept").write_text("kept")
    with disk.read_only():
        print(fails())
    print(fails())
    with disk.full():
        print(fails())
    print(fails())
    with disk.covered():
        print(list(disk.store.iterdir()))
    print((disk.store / "kept").read_text())
    try:
        with slowed(disk.folder, 0.1):
            began = time.monotonic()
            (disk.store / "kept").read_text()
            print("slow", time.monotonic() - began >= 0.1)
    except CannotInject:
        print("slow", True)
"""


@pytest.mark.skipif(not may_mount(), reason="takes the right to mount")
def test_a_disk_fails_for_a_while_and_is_whole_afterwards(tmp_path: Path) -> None:
    command = [*ALONE, sys.executable, "-c", SCRIPT, str(tmp_path / "disk")]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines() == [
        "Read-only file system",
        "None",
        "No space left on device",
        "None",
        "[]",
        "kept",
        "slow True",
    ], ran.stderr


def test_a_store_that_is_taken_away_comes_back_even_if_another_was_begun(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.store.mkdir()
    (disk.store / "kept").write_text("kept")
    with disk.without_store():
        assert not disk.store.exists()
        disk.store.mkdir()
    assert (disk.store / "kept").read_text() == "kept"
