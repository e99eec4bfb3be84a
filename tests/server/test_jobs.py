"""The queue of jobs beside a server: one at a time, cancelled, resumed, and ended with the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from loraloom.adapters.names import Adapter
from loraloom.adapters.store.records import VersionRecord
from loraloom.compose.errors import DamagedJob, InvalidExamples, JobBusy, JobNotFound
from loraloom.compose.jobs import Job, Jobs
from loraloom.server import jobs as module
from loraloom.server.access.access import ANYONE, Access, Role
from loraloom.server.access.patterns import Patterns
from loraloom.server.errors import TooManyJobs
from loraloom.server.job_process import LOG
from loraloom.server.jobs import JobQueue
from tests.server.conftest import Publish
from tests.server.job_fakes import FakeRuns, Lender, damage, ends_as, folder_of, found, let_go, made, try_out


@pytest.fixture
def folder(tmp_path: Path) -> Jobs:
    return folder_of(tmp_path)


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


WHO = Access("team-a", Role.PUBLISH, Patterns.parse("a,b"))


@pytest.fixture
def lender() -> Lender:
    return Lender()


@pytest.fixture
def announced() -> list[VersionRecord]:
    return []


@pytest.fixture
async def queue(
    folder: Jobs,
    runs: FakeRuns,
    lender: Lender,
    announced: list[VersionRecord],
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[JobQueue]:
    """A queue that is being worked off, and looks often."""
    monkeypatch.setattr(module, "LOOK", 0.02)
    record = publish("blend")

    def resolve(adapter: Adapter) -> VersionRecord:
        assert str(adapter) == record.canonical
        return record

    made_here = JobQueue(folder, runs, lender, resolve, announced.append, most=3)
    task = asyncio.create_task(made_here.run())
    yield made_here
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(check: Callable[[], object]) -> None:
    """Return when a check comes true; the test hangs as long as it does not, up to a minute."""
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.005)


async def submitted(queue: JobQueue, name: str) -> Job:
    return await queue.submit(partial(made, queue.jobs, name), WHO)


async def status(queue: JobQueue, job: Job) -> str:
    return (await queue.standing(job)).status


async def settled(queue: JobQueue, job: Job) -> str:
    """The status of a job after it has ended."""
    async with asyncio.timeout(60):
        while not (standing := await queue.standing(job)).ended:
            await asyncio.sleep(0.005)
    return standing.status


async def test_one_after_the_other(queue: JobQueue, runs: FakeRuns) -> None:
    first, second, third = [await submitted(queue, name) for name in ("one", "two", "three")]
    await until(lambda: runs.started == [first.id])
    assert [(await queue.standing(job)).status for job in (first, second, third)] == ["running", "queued", "queued"]
    assert [(await queue.standing(job)).ahead for job in (first, second, third)] == [None, 1, 2]
    let_go(first)
    await until(lambda: runs.started == [first.id, second.id])
    assert (await queue.standing(third)).ahead == 1
    let_go(second)
    await until(lambda: runs.started == [first.id, second.id, third.id])
    let_go(third)
    await settled(queue, third)


async def test_what_a_job_publishes_is_announced(
    queue: JobQueue, announced: list[VersionRecord], runs: FakeRuns
) -> None:
    job = await submitted(queue, "blend")
    await until(lambda: runs.started)
    try_out(job, 0, 1)
    job.finish(found(job, published="blend@1"))
    assert await status(queue, job) == "running"  # it still writes its report
    let_go(job)
    assert await settled(queue, job) == "done"
    assert [record.canonical for record in announced] == ["blend@1"]
    standing = await queue.standing(job)
    assert (standing.trials, standing.best) == (2, 0.75)


async def test_no_more_than_so_many_wait(queue: JobQueue, runs: FakeRuns, folder: Jobs) -> None:
    first = await submitted(queue, "first")
    await until(lambda: runs.started)
    waiting = [submitted(queue, f"waiting-{number}") for number in range(5)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(each, TooManyJobs) for each in outcomes] == [False] * 3 + [True] * 2
    assert len(folder.list()) == 4
    ends_as(first, "interrupted")
    let_go(first, 3)
    await until(lambda: len(runs.started) == 2)
    await queue.resume(first.id, WHO)
    with pytest.raises(TooManyJobs, match="3 jobs wait"):
        await submitted(queue, "late")


async def test_a_job_that_cannot_be_made_takes_no_room(queue: JobQueue, runs: FakeRuns) -> None:
    def fail() -> Job:
        raise InvalidExamples("there are none")

    for _ in range(5):
        with pytest.raises(InvalidExamples):
            await queue.submit(fail, WHO)
    job = await submitted(queue, "good")
    await until(lambda: runs.started == [job.id])


async def test_cancelling_one_that_waits(queue: JobQueue, runs: FakeRuns) -> None:
    first, second, third = [await submitted(queue, name) for name in ("one", "two", "three")]
    await until(lambda: runs.started)
    await queue.cancel(second.id)
    assert await status(queue, second) == "cancelled"
    let_go(first)
    await until(lambda: runs.started == [first.id, third.id])
    await queue.cancel(second.id)
    assert await status(queue, second) == "cancelled"


async def test_a_running_job_is_told_until_it_obeys(queue: JobQueue, runs: FakeRuns) -> None:
    job = await submitted(queue, "blend")
    await until(lambda: runs.started)
    await queue.cancel(job.id)
    assert job.cancelled
    (job.folder / "cancel").unlink()  # as it begins only now, it forgets what it was told
    await until(lambda: job.cancelled)
    assert await status(queue, job) == "running"
    ends_as(job, "cancelled", "as somebody wished")
    let_go(job, 3)
    assert await settled(queue, job) == "cancelled"
    assert (await queue.standing(job)).reason == "as somebody wished"


async def test_one_that_does_not_obey_is_ended(
    queue: JobQueue, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.05)
    job = await submitted(queue, "blend")
    await until(lambda: runs.started)
    ends_as(job, "interrupted", "it was stopped")
    await queue.cancel(job.id)
    assert await settled(queue, job) == "cancelled"
    assert not (job.folder / "go").exists()


async def test_going_on_with_one_that_ended_early(queue: JobQueue, runs: FakeRuns) -> None:
    job = await submitted(queue, "blend")
    await until(lambda: runs.started)
    with pytest.raises(JobBusy, match="is running"):
        await queue.resume(job.id, WHO)
    ends_as(job, "interrupted", "the disk is full")
    let_go(job, 3)
    assert await settled(queue, job) == "interrupted"
    await queue.resume(job.id, WHO)
    await until(lambda: runs.started == [job.id, job.id])
    job.finish(found(job))
    let_go(job)
    assert await settled(queue, job) == "done"
    await queue.resume(job.id, WHO)
    assert await status(queue, job) == "done"


async def test_nobody_queues_twice(queue: JobQueue, runs: FakeRuns) -> None:
    await submitted(queue, "one")
    second = await submitted(queue, "two")
    with pytest.raises(JobBusy, match="is queued"):
        await queue.resume(second.id, WHO)


async def test_there_is_no_such_job(queue: JobQueue) -> None:
    for call in (queue.find, queue.cancel, partial(queue.resume, access=WHO)):
        with pytest.raises(JobNotFound):
            await call("blend-1")


async def test_a_process_that_could_not_begin(
    queue: JobQueue, runs: FakeRuns, caplog: pytest.LogCaptureFixture
) -> None:
    job = await submitted(queue, "blend")
    await until(lambda: runs.started)
    let_go(job, 1)
    assert await settled(queue, job) == "failed"
    assert (await queue.standing(job)).reason == "its process could not begin: the server's log has the details"
    assert str(job.folder / LOG) in caplog.text


async def test_after_one_that_cannot_be_started_comes_the_next(
    queue: JobQueue, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = runs.start

    async def failing(job: Job, key: str) -> asyncio.subprocess.Process:
        if job.spec.name == "bad":
            raise OSError(f"{job.folder}: too many processes")
        return await start(job, key)

    monkeypatch.setattr(runs, "start", failing)
    bad, good = await submitted(queue, "bad"), await submitted(queue, "good")
    await until(lambda: runs.started == [good.id])
    standing = await queue.standing(bad)
    assert (standing.status, standing.reason) == (
        "failed",
        "the server could not run it: the server's log has the details",
    )
    assert f"{bad.folder}: too many processes" in caplog.text


async def test_one_that_lacks_something_does_not_hold_up_the_others(
    queue: JobQueue, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "short", lambda job: "it needs more memory" if job.spec.name == "large" else "")
    large, small = await submitted(queue, "large"), await submitted(queue, "small")
    await until(lambda: runs.started == [small.id])
    assert await status(queue, large) == "queued"


async def test_what_cannot_be_told_does_not_stop_the_queue(
    queue: JobQueue, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(job: Job) -> str:
        raise KeyError("pool")

    monkeypatch.setattr(runs, "short", failing)
    jobs = [await submitted(queue, name) for name in ("one", "two")]
    await until(lambda: runs.started == [jobs[0].id])
    let_go(jobs[0])
    await until(lambda: runs.started == [job.id for job in jobs])


async def test_a_job_that_somebody_else_cancels_while_it_waits_does_not_begin(queue: JobQueue, runs: FakeRuns) -> None:
    """As `loraloom compose cancel` does it, without the server."""
    first, waiting = await submitted(queue, "first"), await submitted(queue, "waiting")
    await until(lambda: runs.started == [first.id])
    Jobs(waiting.folder.parent).get(waiting.id).cancel()
    last = await submitted(queue, "last")
    let_go(first)
    await until(lambda: runs.started == [first.id, last.id])
    assert await status(queue, waiting) == "cancelled"
    let_go(last)
    await queue.resume(waiting.id, WHO)
    await until(lambda: runs.started == [first.id, last.id, waiting.id])


async def test_it_waits_for_what_it_lacks(queue: JobQueue, runs: FakeRuns) -> None:
    runs.lacking = "it needs more memory"
    job = await submitted(queue, "blend")
    async with asyncio.timeout(60):
        while (await queue.standing(job)).reason != "it needs more memory":
            await asyncio.sleep(0.005)
    assert await status(queue, job) == "queued"
    assert runs.started == []
    runs.lacking = ""
    await until(lambda: runs.started == [job.id])


async def test_with_the_queue_its_process_ends(folder: Jobs, runs: FakeRuns) -> None:
    processes: list[asyncio.subprocess.Process] = []

    class Noted(FakeRuns):
        async def start(self, job: Job, key: str) -> asyncio.subprocess.Process:
            processes.append(await super().start(job, key))
            return processes[-1]

    queue = JobQueue(folder, Noted(), Lender(), lambda _: pytest.fail("nothing is published"), lambda _: None)
    task = asyncio.create_task(queue.run())
    await submitted(queue, "blend")
    await until(lambda: processes)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert processes[0].returncode == -15


async def test_a_damaged_job_is_told_as_failed(queue: JobQueue, folder: Jobs) -> None:
    job = made(folder)
    damage(job)
    standing = await queue.standing(job)
    assert (standing.status, standing.ended) == ("failed", True)
    assert "Start the job anew" in standing.reason


async def test_why_it_ended_is_told_without_the_servers_folders(
    queue: JobQueue, folder: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = made(folder)
    ends_as(job, "interrupted", f"[Errno 28] No space left on device: '{job.folder}/trials.jsonl'")
    assert (await queue.standing(job)).reason == "[Errno 28] No space left on device: 'trials.jsonl'"
    monkeypatch.setattr(Job, "state", lambda job: (_ for _ in ()).throw(DamagedJob(f"{job.folder} cannot be read")))
    standing = await queue.standing(job)
    assert (standing.status, "start it anew" in standing.reason) == ("failed", True)
    assert str(tmp_path) not in standing.reason
    assert f"{job.folder} cannot be read" in caplog.text


async def test_a_job_of_an_earlier_server_does_not_begin_by_itself(
    queue: JobQueue, folder: Jobs, runs: FakeRuns
) -> None:
    early = made(folder, "early")
    assert await status(queue, early) == "created"
    await submitted(queue, "late")
    await until(lambda: runs.started)
    assert early.id not in runs.started


async def test_a_jobs_process_gets_a_key_for_its_own_adapters_as_long_as_it_runs(
    queue: JobQueue, runs: FakeRuns, lender: Lender
) -> None:
    job = await submitted(queue, "blend")
    await until(lambda: runs.keys)
    (access,) = lender.lent.values()
    assert list(lender.lent) == runs.keys
    assert (access.key, access.background) == ("team-a", True)
    assert [name for name in ("a", "b", "c") if access.sees(name)] == ["a", "b"]
    let_go(job)
    await until(lambda: not lender.lent)


async def test_one_key_leaves_places_in_the_queue_for_others(folder: Jobs, runs: FakeRuns, lender: Lender) -> None:
    queue = JobQueue(folder, runs, lender, lambda _: pytest.fail("nothing is published"), print, most_of_a_key=2)
    for name in ("a", "b"):
        await submitted(queue, name)
    with pytest.raises(TooManyJobs, match="'team-a'"):
        await submitted(queue, "c")
    await queue.submit(partial(made, folder, "d"), replace(WHO, key="team-b"))
    for name in ("e", "f", "g"):
        await queue.submit(partial(made, folder, name), ANYONE)
