"""Jobs whose processes do what a test says."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraloom.compose.jobs import Job, Jobs
from loraloom.compose.plan import Plan
from loraloom.compose.pool import Member, Pool
from loraloom.compose.result import Chosen, Result, Verdict
from loraloom.compose.spec import spec_from
from loraloom.compose.trials import Trial
from loraloom.server.access.access import Access

EXAMPLES = [{"prompt": f"What is {number}?", "completion": f"{number}"} for number in range(4)]


class Lender:
    """Lends keys that say whose they are.

    Attributes:
        lent: what is lent now, by key.
        all: everything that ever was.
    """

    def __init__(self) -> None:
        self.lent: dict[str, Access] = {}
        self.all: list[Access] = []

    @contextmanager
    def __call__(self, access: Access) -> Iterator[str]:
        key = f"key-{len(self.all)}"
        self.all.append(access)
        self.lent[key] = access
        yield key
        del self.lent[key]


class FakeRuns:
    """Processes that wait until a test lets them go on, and then end with the status that it says.

    Attributes:
        started: the jobs, in the order in which their processes began.
        keys: the key that each was given.
        lacking: what there is too little of.
    """

    def __init__(self) -> None:
        self.started: list[str] = []
        self.keys: list[str] = []
        self.lacking = ""

    async def start(self, job: Job, key: str) -> asyncio.subprocess.Process:
        """A shell that looks for a file."""
        self.started.append(job.id)
        self.keys.append(key)
        go = job.folder / "go"
        go.unlink(missing_ok=True)
        waiting = f'while [ ! -e "{go}" ]; do sleep 0.01; done; exit "$(cat "{go}")"'
        return await asyncio.create_subprocess_exec("sh", "-c", waiting)

    def short(self, job: Job) -> str:
        """What the test says."""
        return self.lacking


def let_go(job: Job, status: int = 0) -> None:
    """Let a job's process end."""
    aside = job.folder / "going"
    aside.write_text(str(status))
    aside.rename(job.folder / "go")


def made(jobs: Jobs, name: str = "blend", base: str = "/nowhere", **spec: Any) -> Job:
    """A job that nobody has planned."""
    unplanned: Any = None
    wanted = spec_from({"name": name, "examples": EXAMPLES, **spec})
    pool = Pool((Member("a@1", "0" * 64, 2), Member("b@1", "1" * 64, 2)), base)
    return jobs.create(Plan(wanted, pool, unplanned, unplanned, unplanned), "/store")


def trial(number: int) -> Trial:
    return Trial(number, 0, "search", {"a@1": 0.5, "b@1": 0.25}, 1.0 / (number + 1), 1.5 / (number + 1), False, 0.1)


def try_out(job: Job, *numbers: int) -> None:
    """Add trials to a job's log."""
    with (job.folder / "trials.jsonl").open("a") as log:
        log.writelines(trial(number).line() for number in numbers)


def found(job: Job, published: str | None = None) -> Result:
    """What a job has found."""
    chosen = Chosen({"a@1": 0.5, "b@1": 0.25}, "search", 3, 0.25, 0.3, "0.5*a@1+0.25*b@1", 4, 0.0)
    verdict = Verdict("better", 4, "it is")
    return Result(job.id, job.spec.name, "loss", chosen, {}, {}, verdict, (), {}, published, "because")


def ends_as(job: Job, status: Any, reason: str = "") -> None:
    """Leave a job's folder as its process does when it ends early."""
    with job.running():
        job.end(status, reason)


def damage(job: Job) -> None:
    """Let a job's log be none."""
    (job.folder / "trials.jsonl").write_text(json.dumps({"trial": 1}) + "\n")


def folder_of(root: Path) -> Jobs:
    return Jobs(root / "jobs")
