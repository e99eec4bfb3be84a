"""Jobs as folders: everything about a job is in its own.

<id>/job.json             what is to be done; never changed
<id>/trials.jsonl         what was tried (`log`)
<id>/preselection.json    how the adapters compare alone, where the pool is larger than what is searched
<id>/result.json          what was found; with it the job is done
<id>/report.html, .png    the same for people
<id>/ended.json           why it ended before that
<id>/cancel               somebody wants it to end
<id>/lock                 locked by the process that runs it, whose id it holds
"""

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from errno import EEXIST
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from loraloom.adapters.store.flock import lock_file, unlock
from loraloom.compose.errors import DamagedJob, InvalidSpec, JobBusy, JobNotFound
from loraloom.compose.files import write_whole
from loraloom.compose.log import read_trials
from loraloom.compose.plan import Plan
from loraloom.compose.pool import Member, Pool
from loraloom.compose.result import Result, result_from
from loraloom.compose.spec import JobSpec, spec_from
from loraloom.compose.trials import Trial

Status: TypeAlias = Literal["created", "running", "interrupted", "cancelled", "failed", "done"]
Ended: TypeAlias = Literal["interrupted", "cancelled", "failed"]

CANCEL = "cancel"
"""A file in a job's folder: somebody wants it to end."""
_FIELDS = {"created", "store", "threads", "spec", "pool"}
_HEAD = ("created", "store", "owner", "threads")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_IDS = 100
"""How many ids are tried for a new job: of 2**32 for a name and a day the first is as good as always free."""
_LOOKS = 20
"""How often a lock is tried for: somebody who only looks holds it for an instant."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a job stands.

    Attributes:
        status: "created" has not begun; "interrupted", "cancelled" and "failed" can be resumed.
        reason: why it ended before it was done; else empty.
        trials: done so far, of all searches.
        best: smallest objective so far of the search whose outcome is kept; None before its first trial.
    """

    status: Status
    reason: str
    trials: int
    best: float | None


class Job:
    """One job's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name

    def _given(self) -> Mapping[str, Any]:
        """All of its description, read anew: it may have megabytes of examples, so nothing keeps it."""
        path = self.folder / "job.json"
        try:
            given = json.loads(path.read_bytes())
            if not isinstance(given, dict) or not given.keys() >= _FIELDS:
                raise ValueError(f"it is no object with {', '.join(sorted(_FIELDS))}")
            return given
        except (OSError, ValueError) as error:
            raise DamagedJob(f"{path} cannot be read: {error}. Start the job anew") from error

    @cached_property
    def _head(self) -> Mapping[str, Any]:
        """What is small of its description: all that a list of jobs needs."""
        given = self._given()
        spec = given["spec"]
        name = spec.get("name", "") if isinstance(spec, dict) else ""
        return {**{field: given.get(field) for field in _HEAD}, "name": name}

    @property
    def name(self) -> str:
        """Of the adapter that it publishes; empty where the description is of another version and has none."""
        return str(self._head["name"])

    @property
    def created(self) -> str:
        """UTC, ISO 8601."""
        return str(self._head["created"])

    @property
    def store(self) -> str:
        """The store of its adapters: a folder or a URL."""
        return str(self._head["store"])

    @property
    def owner(self) -> str | None:
        """Whose it is, on a server with keys: the key's name, and after "@" when that was created."""
        owner = self._head["owner"]
        return None if owner is None else str(owner)

    @property
    def threads(self) -> int:
        """That torch computes on: as many as on the machine where it was made, so that the numbers stay the same."""
        return int(self._head["threads"])

    @cached_property
    def spec(self) -> JobSpec:
        """What was asked for, with the examples inline; raises `DamagedJob`."""
        try:
            return spec_from(self._given()["spec"])
        except InvalidSpec as error:
            raise DamagedJob(f"{self.folder / 'job.json'} is no job of this version: {error}") from error

    @cached_property
    def pool(self) -> Pool:
        """What its pool stood for when it was made."""
        try:
            pool = self._given()["pool"]
            return Pool(tuple(Member(**member) for member in pool["members"]), pool["base"])
        except (KeyError, TypeError) as error:
            raise DamagedJob(f"{self.folder / 'job.json'} is no job of this version: {error!r}") from error

    def trials(self) -> list[Trial]:
        """All trials so far; raises `DamagedJob`."""
        return read_trials(self.folder / "trials.jsonl")

    def result(self) -> Result | None:
        """What was found, if it is done."""
        path = self.folder / "result.json"
        try:
            return result_from(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedJob(f"{path} is no result of this version: {error!r}. Start the job anew") from error

    def state(self) -> State:
        """Where it stands now."""
        try:
            trials = self.trials()
        except DamagedJob as error:
            return State("failed", str(error), 0, None)
        kept = [trial.objective for trial in trials if trial.fold == 0 and not trial.bound]
        status, reason = self._status()
        return State(status, reason, len(trials), min(kept, default=None))

    def cancel(self) -> None:
        """Let the process that runs it end it, soon; one that has not begun does not begin."""
        (self.folder / CANCEL).touch()
        if self._status()[0] == "created":
            self.end("cancelled", "it was cancelled before it began")

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants it to end."""
        return (self.folder / CANCEL).exists()

    def end(self, status: Ended, reason: str) -> None:
        """Note why it ended before it was done."""
        write_whole(self.folder / "ended.json", json.dumps({"status": status, "reason": reason}) + "\n")

    def finish(self, result: Result) -> None:
        """Note what was found: the job is done."""
        write_whole(self.folder / "result.json", result.text())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block this process, and no other, runs the job.

        Raises:
            JobBusy: another process does.
            OSError: the folder cannot be written.
        """
        lock = self._lock()
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            for name in ("ended.json", CANCEL):
                (self.folder / name).unlink(missing_ok=True)
            yield
        finally:
            unlock(lock)

    def _lock(self) -> int:
        for _ in range(_LOOKS):
            with suppress(BlockingIOError):
                return lock_file(self.folder / "lock", LOCK_EX | LOCK_NB)
            time.sleep(0.05)
        raise JobBusy(f"the job {self.id} is being run by process {self._holder()}: wait for it, or cancel it")

    def _holder(self) -> str:
        try:
            return (self.folder / "lock").read_text(encoding="utf-8").strip() or "unknown"
        except OSError:
            return "unknown"

    def _status(self) -> tuple[Status, str]:
        if (self.folder / "result.json").exists():
            return "done", ""
        if not (self.folder / "lock").exists():
            return self._ended() or ("created", "")
        if self._is_locked():
            return "running", ""
        return self._ended() or ("interrupted", "the process that ran it ended without a word")

    def _is_locked(self) -> bool:
        try:
            unlock(lock_file(self.folder / "lock", LOCK_SH | LOCK_NB))
        except BlockingIOError:
            return True
        return False

    def _ended(self) -> tuple[Ended, str] | None:
        with suppress(OSError, ValueError):
            ended = json.loads((self.folder / "ended.json").read_bytes())
            return ended["status"], ended["reason"]
        return None


class Jobs:
    """A folder of jobs."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, plan: Plan, store: str, owner: str | None = None) -> Job:
        """Write down what is to be done.

        Args:
            plan: the job, its examples inline.
            store: where its adapters are.
            owner: whose it is.

        Raises:
            OSError: the folder cannot be written.
        """
        now = datetime.now(UTC)
        job = {
            "created": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "store": store,
            "owner": owner,
            "threads": plan.spec.threads or len(os.sched_getaffinity(0)),
            "spec": plan.spec.model_dump(mode="json"),
            "pool": {"members": [asdict(member) for member in plan.pool.members], "base": plan.pool.base},
        }
        folder = self._new_folder(f"{plan.spec.name.replace('/', '-')}-{now:%Y%m%d}")
        write_whole(folder / "job.json", json.dumps(job, indent=1, ensure_ascii=False) + "\n")
        return Job(folder)

    def get(self, id: str, among: Callable[[Job], bool] = lambda _: True) -> Job:
        """The job of that id, of those that `among` says; raises `JobNotFound`, with the nearest of them."""
        folder = self._root / id
        if _ID.fullmatch(id) and (folder / "job.json").is_file() and _is_among(among, Job(folder)):
            return Job(folder)
        near = get_close_matches(id, [job.id for job in self.list(among)], cutoff=0.3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise JobNotFound(f"there is no job {id[:200]!r}.{hint}")

    def list(self, among: Callable[[Job], bool] = lambda _: True) -> "list[Job]":
        """The jobs that `among` says, the oldest first; without those whose description cannot be read.

        Of all these descriptions one at a time is in memory.
        """
        with suppress(FileNotFoundError):
            jobs = [Job(folder) for folder in self._root.iterdir() if (folder / "job.json").is_file()]
            readable = [job for job in jobs if _is_readable(job) and among(job)]
            return sorted(readable, key=lambda job: (job.created, job.id))
        return []

    def _new_folder(self, prefix: str) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        for _ in range(_IDS):
            folder = self._root / f"{prefix}-{secrets.token_hex(4)}"
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
        raise FileExistsError(EEXIST, "no id is free today: give the job another name", str(self._root / prefix))


def _is_among(among: Callable[[Job], bool], job: Job) -> bool:
    """Also of a job that cannot be read: whoever may see all is told so."""
    try:
        return among(job)
    except DamagedJob:
        return False


def _is_readable(job: Job) -> bool:
    try:
        return bool(job.created)
    except DamagedJob:
        return False
