"""A process that gives way, and ends with whoever started it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loraloom.server.aside import threads

ASIDE = "import os, signal; from loraloom.server.aside import stand_aside; stand_aside(19, signal.SIGTERM); "
linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux's kernel")


def test_a_few_threads_and_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, expected in ((None, 1), (1, 1), (7, 1), (32, 8)):
        monkeypatch.setattr(os, "cpu_count", lambda found=processors: found)
        assert threads() == expected


@linux
def test_it_is_the_last_to_compute_and_the_first_to_be_ended() -> None:
    told = ASIDE + "print(os.nice(0), open('/proc/self/oom_score_adj').read().strip())"
    printed = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["19", "1000"]


@linux
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    child = ASIDE + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); import time; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        pid = int(_eventually(tmp_path / "pid"))
        process.kill()
        process.wait()
        _gone(pid)
    finally:
        process.kill()


def _eventually(path: Path) -> str:
    for _ in range(3000):
        if path.is_file() and (text := path.read_text()):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def _gone(pid: int) -> None:
    """It has ended; whoever inherits it may not have taken note."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(3000):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError(f"{pid} is still there")
