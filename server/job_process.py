"""The process of a job: the lowest priority, no GPU, and what it prints in the job's folder."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loraloom.compose.errors import DamagedJob
from loraloom.compose.jobs import Job
from loraloom.compose.spec import KEY
from loraloom.server.aside import stand_aside
from loraloom.server.footprint import read_footprint
from loraloom.server.machine.memory import read_memory

LOG = "log.txt"
"""In a job's folder: what its processes have printed."""


class Runs(Protocol):
    """Runs jobs as processes."""

    async def start(self, job: Job, key: str) -> asyncio.subprocess.Process:
        """A process that runs the job, or goes on with it, and shows the server a key."""

    def short(self, job: Job) -> str:
        """What there is too little of to start it now, in one sentence; empty if nothing. May block."""


@dataclass(frozen=True)
class Child:
    """`Runs` by `python -m loraloom.compose`, with the lowest priority.

    Attributes:
        cache: of a remote store.
        scratch: a folder for what it needs for a while.
    """

    cache: Path
    scratch: Path

    async def start(self, job: Job, key: str) -> asyncio.subprocess.Process:
        """As `Runs.start`; what it prints goes to the job's folder. The GPU is the engine's: it does not see it."""
        command = [sys.executable, "-m", "loraloom.server.job_process", str(job.folder), "--cache", str(self.cache)]
        environment = {**os.environ, "TMPDIR": str(self.scratch), "CUDA_VISIBLE_DEVICES": "", KEY: key}
        with (job.folder / LOG).open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *command,
                *("--by", (job.owner or "server").partition("@")[0]),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def short(self, job: Job) -> str:
        """As `Runs.short`: the scorer `torch` loads the base once more, and half as much again is computed with."""
        try:
            footprint = read_footprint(Path(job.pool.base)) if job.spec.scorer == "torch" else None
        except DamagedJob:  # as its process will find out
            return ""
        if footprint is None:
            return ""
        needed = 1.5 * footprint.weights * (2 if footprint.sixteen_bits else 1)
        if (available := read_memory().available) >= needed:
            return ""
        return f"it needs about {needed / 2**30:.1f} GiB of main memory, and {available / 2**30:.1f} GiB are free"


def main() -> None:
    """In the process of its own: give way, and run the job."""
    stand_aside(nice=19, last=signal.SIGTERM)
    from loraloom.compose.__main__ import main as compose

    sys.exit(compose())


if __name__ == "__main__":
    main()
