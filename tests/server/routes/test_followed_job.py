"""A job that is watched: only what is new in its log is read."""

from pathlib import Path

import pytest

from loraloom.compose.errors import DamagedJob
from loraloom.compose.jobs import Job
from loraloom.compose.trials import read_trial
from loraloom.server.routes import followed_job as module
from loraloom.server.routes.followed_job import FollowedJob
from tests.server.job_fakes import damage, ends_as, folder_of, made, trial, try_out


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return made(folder_of(tmp_path))


def test_it_tells_what_the_job_does_and_reads_each_trial_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(module, "read_trial", lambda line: read.append(line) or read_trial(line))
    followed = FollowedJob(job.folder)
    assert followed.trials() == []
    for number in range(3):
        try_out(job, number)
        for _ in range(2):
            assert followed.trials() == job.trials()
            assert followed.state() == job.state()
    assert len(read) == 3
    ends_as(job, "interrupted", "it was stopped")
    assert followed.state() == job.state()


def test_a_line_that_is_being_written_is_waited_for(job: Job) -> None:
    followed, line = FollowedJob(job.folder), trial(0).line()
    path = job.folder / "trials.jsonl"
    for end in (5, len(line) - 1):
        path.write_text(line[:end])
        assert followed.trials() == []
    path.write_text(line + trial(1).line()[:7])
    assert followed.trials() == [trial(0)]


def test_what_is_no_log_is_told_each_time(job: Job) -> None:
    followed = FollowedJob(job.folder)
    try_out(job, 0)
    assert len(followed.trials()) == 1
    with (job.folder / "trials.jsonl").open("ab") as log:
        log.write(b"\xff\n")
    for _ in range(2):
        with pytest.raises(DamagedJob, match="no text"):
            followed.trials()
    damage(job)
    fresh = FollowedJob(job.folder)
    for _ in range(2):
        with pytest.raises(DamagedJob, match="no trial"):
            fresh.trials()
    assert fresh.state().status == "failed"
