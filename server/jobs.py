"""Jobs that compose adapters, beside the server: one at a time, each as a process of its own that gives way to it.

A job whose process ends with the server is interrupted; the next server lists it, and goes on with it when it is told.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TypeAlias

from loraloom.adapters.names import Adapter, parse_adapter
from loraloom.adapters.store.records import VersionRecord
from loraloom.compose.errors import DamagedJob, JobBusy
from loraloom.compose.jobs import CANCEL, Job, Jobs
from loraloom.server.access.access import ANONYMOUS, Access
from loraloom.server.errors import TooManyJobs
from loraloom.server.gate.statuses import JOB
from loraloom.server.job_process import LOG, Runs
from loraloom.server.job_standing import Standing, without_folders

log = logging.getLogger("vllm.loraloom.jobs")

MOST = 16
"""Jobs that may wait for their turn."""
LOOK = 0.5
"""Seconds between two looks at what may have changed: the memory that is free, whether a job obeys."""
GRACE = 15.0
"""Seconds that a cancelled job gets to end by itself, and again after it was told to terminate."""
IN_THE_LOG = "the server's log has the details"
"""What whoever asks over HTTP is told of what only those who run the server shall know."""


Among: TypeAlias = Callable[[Job], bool]
"""Which jobs exist for somebody."""


def every(_: Job) -> bool:
    """All jobs."""
    return True


class JobQueue:
    """The jobs of one server; all methods belong to its event loop."""

    def __init__(
        self,
        jobs: Jobs,
        child: Runs,
        lend: Callable[[Access], AbstractContextManager[str]],
        resolve: Callable[[Adapter], VersionRecord],
        announce: Callable[[VersionRecord], object],
        most: int = MOST,
        most_of_a_key: int = MOST // 4,
    ) -> None:
        """
        Args:
            jobs: their folder.
            child: runs one.
            lend: a key that is valid within a block, for a job to use the server with.
            resolve: the version of a name; may block.
            announce: told of every version that a job has published.
            most: that may wait.
            most_of_a_key: of one key's, where there are keys.
        """
        self.jobs = jobs
        self._child = child
        self._lend = lend
        self._resolve = resolve
        self._announce = announce
        self._most = most
        self._most_of_a_key = most_of_a_key
        self._waiting: list[Job] = []
        self._access: dict[str, Access] = {}
        self._coming: Counter[str] = Counter()
        self._current: Job | None = None
        self._unwanted = False
        self._short: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Run jobs for ever, one after the other; what goes wrong is logged."""
        while True:
            try:
                self._current, self._unwanted = await self._next(), False
            except Exception:  # the folder cannot be read just now
                log.exception("no job can be begun")
                await asyncio.sleep(LOOK)
                continue
            try:
                await self._run(self._current)
                await self._tell(self._current)
            except Exception:
                log.exception("the job %s could not be run", self._current.id)
                await asyncio.to_thread(_note_failure, self._current)
            finally:
                self._current = None

    async def submit(self, make: Callable[[], Job], access: Access) -> Job:
        """Make a job, if there is room for one more, and let it wait for its turn.

        Args:
            make: makes it; may block, and raise what it likes.
            access: of whoever wants it.

        Raises:
            TooManyJobs: as many wait as may.
        """
        self._check_room(access)
        self._coming[access.key] += 1
        try:
            job = await asyncio.to_thread(make)
        finally:
            self._coming[access.key] -= 1
        self._add(job, access)
        return job

    async def resume(self, id: str, access: Access, among: Among = every) -> Job:
        """Let a job that has ended before it was done wait for its turn; one that is done stays as it is.

        Args:
            id: the job's.
            access: of whoever wants it to go on.
            among: which jobs exist for them.

        Raises:
            JobNotFound: there is none.
            JobBusy: it runs, or waits already.
            TooManyJobs: as many wait as may.
        """
        job, standing = await self.find(id, among)
        if not standing.ended:
            raise JobBusy(f"the job {job.id} is {standing.status}: wait for it, or cancel it")
        if standing.status != "done":
            self._check_room(access)
            (job.folder / CANCEL).unlink(missing_ok=True)
            self._add(job, access)
        return job

    async def cancel(self, id: str, among: Among = every) -> Job:
        """End a job, or take it out of the queue; one that has ended stays as it is. Raises `JobNotFound`."""
        job, standing = await self.find(id, among)
        if standing.status == "queued":
            self._waiting = [each for each in self._waiting if each.id != job.id]
            self._access.pop(job.id, None)
            await asyncio.to_thread(job.end, "cancelled", "it was cancelled while it waited for its turn")
        elif not standing.ended:
            await asyncio.to_thread(job.cancel)
            self._unwanted = self._unwanted or self._is_current(job)
        return job

    async def find(self, id: str, among: Among = every) -> tuple[Job, Standing]:
        """A job of those that `among` says, and where it stands; raises `JobNotFound`."""
        job = await asyncio.to_thread(self.jobs.get, id, among)
        return job, await self.standing(job)

    async def standing(self, job: Job) -> Standing:
        """Where a job stands."""
        try:
            state = await asyncio.to_thread(job.state)
        except DamagedJob as error:
            log.warning("the job %s cannot be read: %s", job.id, error)
            return Standing("failed", JOB)
        ahead = next((place for place, each in enumerate(self._waiting) if each.id == job.id), None)
        if ahead is not None:
            return Standing(
                "queued", self._short.get(job.id, ""), state.trials, state.best, ahead + (self._current is not None)
            )
        if self._is_current(job):  # its process may not have begun, or may still write the report
            return Standing("running", "", state.trials, state.best)
        return Standing(state.status, without_folders(state.reason), state.trials, state.best)

    def numbers(self) -> dict[str, int]:
        """How many jobs wait for their turn, and how many run."""
        return {"queued": len(self._waiting), "running": int(self._current is not None)}

    def _is_current(self, job: Job) -> bool:
        return self._current is not None and self._current.id == job.id

    def _check_room(self, access: Access) -> None:
        of_the_key = sum(each.key == access.key for each in self._access.values()) + self._coming[access.key]
        if access.key != ANONYMOUS and of_the_key >= self._most_of_a_key:
            raise TooManyJobs(
                f"{of_the_key} jobs of the key {access.key!r} wait for their turn already: try again later"
            )
        if len(self._waiting) + self._coming.total() >= self._most:
            raise TooManyJobs(f"{self._most} jobs wait for their turn already: try again later, or cancel one")

    def _add(self, job: Job, access: Access) -> None:
        self._access[job.id] = access
        self._waiting.append(job)
        self._changed.set()

    async def _next(self) -> Job:
        """The first that waits and for which there is what it needs, as soon as there is one."""
        while True:
            self._short = {}
            for job in list(self._waiting):
                short = await asyncio.to_thread(self._short_of, job)
                if job not in self._waiting:  # it was cancelled meanwhile
                    continue
                if job.cancelled or not short:
                    self._waiting.remove(job)
                if job.cancelled:
                    self._access.pop(job.id, None)
                if not job.cancelled and not short:
                    return job
                self._short[job.id] = short
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK if self._waiting else None)

    def _short_of(self, job: Job) -> str:
        try:
            return self._child.short(job)
        except Exception:  # whatever it is, its process will say so
            log.exception("what the job %s needs cannot be told", job.id)
            return ""

    async def _run(self, job: Job) -> None:
        access = self._access.pop(job.id)
        with self._lend(await asyncio.to_thread(_for, job, access)) as key:
            process = await self._child.start(job, key)
            try:
                await self._obeying(job, process)
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.terminate()
                    await process.wait()
        log.info("the job %s ended with status %s", job.id, process.returncode)
        state = await asyncio.to_thread(job.state)
        if state.status == "created":
            log.error("the process of the job %s could not begin: see %s", job.id, job.folder / LOG)
            await asyncio.to_thread(job.end, "failed", f"its process could not begin: {IN_THE_LOG}")
        elif self._unwanted and state.status == "interrupted":
            await asyncio.to_thread(job.end, "cancelled", "it was cancelled")

    async def _obeying(self, job: Job, process: asyncio.subprocess.Process) -> None:
        """Wait for the end; a cancelled job that does not see it, or begins only then, is told again and then ended."""
        ended = asyncio.ensure_future(process.wait())
        told = 0
        while not (await asyncio.wait({ended}, timeout=LOOK))[0]:
            if self._unwanted:
                told += 1
                await asyncio.to_thread(job.cancel)
            with suppress(ProcessLookupError):
                if told == int(GRACE / LOOK):
                    process.terminate()
                if told == int(2 * GRACE / LOOK):
                    process.kill()

    async def _tell(self, job: Job) -> None:
        result = await asyncio.to_thread(job.result)
        if result is not None and result.published is not None:
            self._announce(await asyncio.to_thread(self._resolve, parse_adapter(result.published)))


def _for(job: Job, access: Access) -> Access:
    """What a job may do with the server: compute with the adapters of its pool."""
    return access.for_a_job([member.partition("@")[0] for member in job.pool.names])


def _note_failure(job: Job) -> None:
    with suppress(OSError):
        if job.state().status in ("created", "interrupted"):
            job.end("failed", f"the server could not run it: {IN_THE_LOG}")
