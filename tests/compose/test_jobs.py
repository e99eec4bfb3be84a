"""Jobs as folders."""

import json
import multiprocessing
import os
import shutil
import signal
import tracemalloc
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest

from loraloom.compose import jobs as module
from loraloom.compose.errors import DamagedJob, JobBusy, JobNotFound
from loraloom.compose.jobs import Job, Jobs
from loraloom.compose.log import TrialLog
from tests.compose.conftest import MakeJob, Planned
from tests.compose.test_result import result
from tests.compose.test_trials import trial


def test_a_job_is_written_down_whole(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(name="team/blend", optimizer={"budget": 7, "seed": 3})
    again = Jobs(tmp_path / "jobs").get(job.id)
    assert job.id.startswith("team-blend-")
    assert again.spec.optimizer.seed == 3
    assert len(again.spec.examples) == 5
    assert again.pool.names == ("a@1", "b@1", "org/c@1")
    assert (again.store, again.threads) == (str(tmp_path / "store"), len(os.sched_getaffinity(0)))
    assert again.created.endswith("Z")
    assert job.state() == again.state()
    assert (job.state().status, job.state().best, job.trials(), job.result()) == ("created", None, [], None)


def test_the_number_of_threads_may_be_given(make_job: MakeJob) -> None:
    assert make_job(threads=1).threads == 1


def test_jobs_are_listed_and_found(make_job: MakeJob, tmp_path: Path) -> None:
    made = [make_job(name="one"), make_job(name="two")]
    jobs = Jobs(tmp_path / "jobs")
    (tmp_path / "jobs" / "other").mkdir()
    assert sorted(job.id for job in jobs.list()) == sorted(job.id for job in made)
    with pytest.raises(JobNotFound, match=f"Did you mean {made[0].id}"):
        jobs.get(made[0].id[:-1])
    for id in ("../jobs/" + made[0].id, "", ".", "other", "/etc"):
        with pytest.raises(JobNotFound):
            jobs.get(id)
    assert Jobs(tmp_path / "none").list() == []


def test_where_a_job_stands(make_job: MakeJob) -> None:
    job = make_job()
    TrialLog(job.folder / "trials.jsonl").append(
        [trial(trial=0, objective=2.0), trial(trial=1, objective=1.0, bound=True), trial(fold=1, objective=0.5)]
    )
    with job.running():
        assert (job.state().status, job.state().trials, job.state().best) == ("running", 3, 2.0)
        job.end("interrupted", "the disk is full")
    assert (job.state().status, job.state().reason) == ("interrupted", "the disk is full")
    with job.running():
        assert job.state().status == "running"
        job.finish(result())
    assert job.state().status == "done"
    assert job.result() == result()


def hold(folder: Path, ready: Any) -> None:
    with Job(folder).running():
        ready.set()
        signal.pause()


def test_two_processes_do_not_run_the_same_job(make_job: MakeJob) -> None:
    job, context = make_job(), multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(job.folder, ready), daemon=True)
    other.start()
    assert other.pid is not None
    assert ready.wait(300)
    with pytest.raises(JobBusy, match=f"run by process {other.pid} on "), job.running():
        pass
    assert job.state().status == "running"
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    state = job.state()
    assert (state.status, state.reason) == ("interrupted", "the process that ran it ended without a word")
    with job.running():
        assert job.state().status == "running"


def test_cancelling(make_job: MakeJob) -> None:
    job = make_job()
    with job.running():
        job.cancel()
        assert job.cancelled
        assert job.state().status == "running"
    with job.running():
        assert not job.cancelled
    waiting = make_job()
    waiting.cancel()
    assert waiting.state().status == "cancelled"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_job_is_told(make_job: MakeJob, content: str) -> None:
    job = make_job()
    (job.folder / "job.json").write_text(content)
    with pytest.raises(DamagedJob, match="cannot be read"):
        Job(job.folder).spec  # noqa: B018 - reading it is what raises


def test_a_job_of_another_version_is_told(make_job: MakeJob) -> None:
    job = make_job()
    given = json.loads((job.folder / "job.json").read_text())
    given["spec"]["optimizer"]["name"] = "Adam"
    (job.folder / "job.json").write_text(json.dumps(given))
    with pytest.raises(DamagedJob, match="no job of this version"):
        Job(job.folder).spec  # noqa: B018 - reading it is what raises


def test_a_folder_that_cannot_be_written_is_told(plan: Any) -> None:
    with pytest.raises(OSError, match="/proc/jobs"):
        Jobs(Path("/proc/jobs")).create(plan(), "store")


@pytest.mark.parametrize("content", ['{"created": "now"}', "{}"])
def test_a_job_that_cannot_be_read_does_not_hide_the_others(make_job: MakeJob, tmp_path: Path, content: str) -> None:
    bad, good = make_job(name="bad"), make_job(name="good")
    (bad.folder / "job.json").write_text(content)
    assert [job.id for job in Jobs(tmp_path / "jobs").list()] == [good.id]
    with pytest.raises(JobNotFound, match="Did you mean good-"):
        Jobs(tmp_path / "jobs").get(good.id[:-1])


def test_a_pool_and_a_result_of_another_version_are_told(make_job: MakeJob) -> None:
    job = make_job()
    given = json.loads((job.folder / "job.json").read_text())
    given["pool"]["members"][0]["more"] = 1
    (job.folder / "job.json").write_text(json.dumps(given))
    (job.folder / "result.json").write_text('{"job": "x"}')
    with pytest.raises(DamagedJob, match="no job of this version"):
        Job(job.folder).pool  # noqa: B018 - reading it is what raises
    with pytest.raises(DamagedJob, match="no result of this version"):
        job.result()


def test_a_damaged_log_is_a_failure_that_is_told(make_job: MakeJob) -> None:
    job = make_job()
    (job.folder / "trials.jsonl").write_text("{}\n")
    assert job.state().status == "failed"
    assert "is no trial" in job.state().reason


@pytest.mark.parametrize("look", ["list", "get"])
def test_to_list_jobs_takes_the_memory_of_one(make_job: MakeJob, tmp_path: Path, look: str) -> None:
    job, size = make_job(), 2**20
    given = json.loads((job.folder / "job.json").read_text())
    given["spec"]["examples"][0]["messages"][0]["content"] = "x" * size
    (job.folder / "job.json").write_text(json.dumps(given))
    for number in range(15):
        shutil.copytree(job.folder, tmp_path / "jobs" / f"other-{number}")
    tracemalloc.start()
    try:
        if look == "list":
            listed = Jobs(tmp_path / "jobs").list()
            assert [each.name for each in listed] == [job.name] * 16
        else:
            with pytest.raises(JobNotFound):
                Jobs(tmp_path / "jobs").get("other")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < size
    assert peak < 6 * size


class OneDay(datetime):
    """On which midnight does not come."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2024, 2, 29, tzinfo=tz)


def test_an_id_that_is_taken_is_not_tried_for_ever(
    plan: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.secrets, "token_hex", lambda size: "ab" * size)
    monkeypatch.setattr(module, "datetime", OneDay)
    jobs = Jobs(tmp_path / "jobs")
    assert jobs.create(plan(name="blend"), "store").id == "blend-20240229-abababab"
    with pytest.raises(OSError, match="no id is free today: give the job another name"):
        jobs.create(plan(name="blend"), "store")
