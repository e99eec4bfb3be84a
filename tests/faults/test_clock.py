import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.clock import clock


@pytest.mark.skipif(shutil.which("cc") is None, reason="takes a C compiler")
def test_only_the_wall_clock_of_its_processes_jumps(tmp_path: Path) -> None:
    moved = clock(tmp_path)
    moved.set_ahead(86400)
    program = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    command = [sys.executable, "-S", "-c", program]
    ran = subprocess.run(command, env={**os.environ, **moved.environment}, capture_output=True, text=True, check=True)
    wall, date, steady = map(float, ran.stdout.split())
    assert wall - time.time() == pytest.approx(86400, abs=3600)
    assert date - time.time() == pytest.approx(86400, abs=3600)
    assert steady == pytest.approx(time.monotonic(), abs=3600)
