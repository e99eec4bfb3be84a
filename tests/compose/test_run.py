"""Jobs from beginning to end, on a tiny model: what is found, and what happens to a job that is killed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob, NameTaken, StoreError
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.compose.errors import Cancelled, Interrupted
from loraloom.compose.jobs import Job, State
from loraloom.compose.log import TrialLog
from loraloom.compose.publication import publish
from loraloom.compose.result import Result, Verdict
from loraloom.compose.run import run
from loraloom.compose.trials import Trial
from tests.compose.conftest import EXAMPLES, MakeJob, Planned

PATIENCE = 300
CONTEXT = 48
"""Tokens: room for the other examples in the prompt."""


@pytest.fixture(scope="module")
def tiny_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a short context: its answers, which seldom end by themselves, are short, too."""
    folder = shutil.copytree(tiny_base, tmp_path_factory.mktemp("base") / "short-llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT}))
    return folder


@pytest.fixture
def make_job(make_job: MakeJob) -> MakeJob:
    """On one thread: others would wait for each other far longer than a tiny model takes."""
    return partial(make_job, threads=1)


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reports are drawn, where several jobs are run for what they find."""
    monkeypatch.setattr("loraloom.compose.run.report", lambda job: None)


def told(job: Job) -> list[tuple[object, ...]]:
    """The trials of a job, apart from how long they took."""
    return [(t.fold, t.trial, t.kind, t.weights, t.loss, t.objective, t.bound) for t in job.trials()]


def outcome(result: Result) -> dict[str, object]:
    """A result apart from what names the job."""
    values = json.loads(result.text())
    values.pop("job")
    for name in ("job", "created"):
        values["provenance"].pop(name)
    return values


def test_a_job_from_beginning_to_end(make_job: MakeJob, store: Store) -> None:
    job, seen, stages = make_job(holdout=0.4, publish="always", name="team/blend"), [], []
    result = run(job, store, seen.append, stages.append, by="ada")
    assert job.state().status == "done"
    assert job.result() == result
    assert seen == job.trials()
    assert [trial.kind for trial in seen] == ["none", *["single"] * 3, "mean", *["search"] * 8, "recommended"]
    assert set(result.held_out) == {"composition", "nothing", "best_single", "mean", "in_context"}
    assert set(result.comparisons) == {"nothing", "best_single", "mean", "in_context"}
    assert result.chosen.objective == min(trial.objective for trial in seen if not trial.bound)
    assert len(result.samples) == 2
    assert all(set(sample.outputs) == {"nothing", "best_single", "composition"} for sample in result.samples)
    assert {path.name for path in job.folder.iterdir()} >= {"report.html", "report.png", "result.json"}
    assert stages[0] == "reading the examples"
    record = store.resolve(Adapter("team/blend"))
    assert result.published == record.canonical == "team/blend@1"
    assert record.by == "ada"
    composed = record.provenance["composed"]
    assert isinstance(composed, dict)
    assert composed["job"] == job.id
    assert composed["verdict"] == str(result.verdict)
    assert record.rank == result.chosen.rank <= composed["rank_before"] == 10
    assert run(job, store) == result


def test_with_leave_one_out_every_example_judges_once(make_job: MakeJob, store: Store) -> None:
    job = make_job(optimizer={"budget": 2}, publish="never")
    result = run(job, store)
    assert {trial.fold for trial in job.trials()} == set(range(6))
    assert result.verdict.examples == 5
    assert [sample.expected for sample in result.samples] == [example["completion"] for example in EXAMPLES[:4]]
    assert (result.published, result.publication) == (None, "not published: the job says never")


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize(
    "fields",
    [
        {"method": "lorahub", "pool": ["a", "b"]},
        {"pool": {"preselect": 2}},
        {"pool": {"preselect": 2, "by": "similarity"}},
        {"objective": "exact_match"},
        {"publish": {"when": "always", "rank": 3}},
    ],
)
def test_the_same_job_twice_gives_the_same(make_job: MakeJob, store: Store, fields: dict[str, object]) -> None:
    jobs = [make_job(holdout=0.4, **fields) for _ in range(2)]
    results = [run(job, store) for job in jobs]
    assert told(jobs[0]) == told(jobs[1])
    first, second = map(outcome, results)
    first["publication"] = second["publication"] = ""  # the second time the content is there already
    assert first == second


@pytest.mark.usefixtures("unreported")
def test_what_is_truncated_is_judged_as_it_is_published(make_job: MakeJob, store: Store) -> None:
    whole = run(make_job(holdout=0.4, publish="never"), store)
    small = run(make_job(holdout=0.4, publish={"when": "always", "rank": 1}), store)
    assert small.chosen.weights == whole.chosen.weights
    assert (small.chosen.rank, whole.chosen.error) == (1, 0)
    assert small.chosen.error > 0.01
    assert small.held_out["composition"].loss != whole.held_out["composition"].loss
    assert small.held_out["mean"] == whole.held_out["mean"]


def test_choices(make_job: MakeJob, store: Store) -> None:
    examples = [{**example, "choices": [example["completion"], " known"]} for example in EXAMPLES[:3]]
    result = run(make_job(examples=examples, holdout=0.34, objective="choice"), store)
    assert 0 <= result.held_out["composition"].score <= 1


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("after", [1, 4, 9, 14])
def test_a_job_that_was_stopped_ends_as_if_it_had_not_been(make_job: MakeJob, store: Store, after: int) -> None:
    whole, stopped = make_job(holdout=0.4), make_job(holdout=0.4)
    expected = outcome(run(whole, store))

    def stop(trial: Trial) -> None:
        if trial.trial + 1 == after:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="it was stopped"):
        run(stopped, store, stop)
    assert (stopped.state().status, stopped.state().reason) == ("interrupted", "it was stopped")
    assert outcome(run(stopped, store)) == expected
    assert told(stopped) == told(whole)


HALTING = """
import os, runpy, signal, sys
from loraloom.compose.log import TrialLog
append, count, written = TrialLog.append, int(sys.argv.pop()), []
def halting(log, trials):
    append(log, trials)
    before = len(written)
    written.extend(trials)
    if before < count <= len(written):
        os.kill(os.getpid(), signal.SIGSTOP)
TrialLog.append = halting
runpy.run_module("loraloom.compose", run_name="__main__")
"""


@contextmanager
def halted(job: Job, count: int) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that runs the job, and that has stopped itself in its midst: once it had written so many trials."""
    command = [sys.executable, "-c", HALTING, str(job.folder), str(count)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG) is None:
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline, "it wrote no trials"
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("unreported")
def test_a_job_that_was_killed_ends_as_if_it_had_not_been(make_job: MakeJob, store: Store) -> None:
    fields = {"holdout": 0.4, "optimizer": {"name": "CMA", "budget": 100}}
    whole, killed = make_job(**fields), make_job(**fields)
    expected = outcome(run(whole, store))
    for lines in (1, 60):
        with halted(killed, lines) as process:
            assert killed.state().status == "running"
            process.kill()
            process.wait()
        assert killed.state().status == "interrupted"
        assert "ended without a word" in killed.state().reason
    assert 60 < killed.state().trials < 106
    assert outcome(run(killed, store)) == expected
    assert told(killed) == told(whole)


def test_who_is_asked_to_end_says_so(make_job: MakeJob, store: Store) -> None:
    job = make_job(holdout=0.4, optimizer={"name": "CMA", "budget": 100})
    with halted(job, 10) as process:
        job.cancel()
        process.send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE) == 3
    assert job.state().status == "cancelled"
    with halted(job, 1) as process:
        process.terminate()
        process.send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE) == 3
    assert (job.state().status, job.state().reason) == ("interrupted", "it was stopped")


@pytest.mark.usefixtures("unreported")
def test_a_full_disk_interrupts(make_job: MakeJob, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job, append = make_job(holdout=0.4), TrialLog.append

    def full(log: TrialLog, trials: list[Trial]) -> None:
        if trials[0].trial > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(log, trials)

    with monkeypatch.context() as patch:
        patch.setattr(TrialLog, "append", full)
        with pytest.raises(Interrupted, match="No space left on device: repair that, or make room, and resume"):
            run(job, store)
    assert job.state().status == "interrupted"
    assert run(job, store).chosen.weights == run(make_job(holdout=0.4), store).chosen.weights


def test_who_cancels_is_heard(make_job: MakeJob, store: Store) -> None:
    job = make_job(holdout=0.4)

    def cancel(trial: Trial) -> None:
        job.cancel()

    with pytest.raises(Cancelled, match=f"resume {job.id}"):
        run(job, store, cancel)
    assert job.state().status == "cancelled"


def test_what_cannot_be_done_is_told(make_job: MakeJob, store: Store) -> None:
    job = make_job(holdout=0.4)
    weights = Path(store.url, "blobs", job.pool.members[0].digest, "adapter_model.safetensors")
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(DamagedBlob):
        run(job, store)
    assert job.state().status == "failed"
    assert "is damaged" in job.state().reason


@pytest.mark.usefixtures("unreported")
def test_nothing_leaks_into_a_search(make_job: MakeJob, store: Store) -> None:
    """Other answers among the held-out examples change no trial."""
    held = [{**EXAMPLES[4], "completion": " known"}, {"prompt": "is", "completion": "is"}]
    jobs = [make_job(examples=EXAMPLES[:3], holdout=given, publish="never") for given in (EXAMPLES[3:], held)]
    results = [run(job, store) for job in jobs]
    assert told(jobs[0]) == told(jobs[1])
    assert results[0].held_out["composition"].score != results[1].held_out["composition"].score


def test_a_report_that_is_missing_is_drawn(make_job: MakeJob, store: Store, tmp_path: Path) -> None:
    job = make_job(holdout=0.4)
    result = run(job, store)
    (job.folder / "report.html").unlink()
    assert run(job, store) == result
    assert (job.folder / "report.html").exists()


@pytest.mark.usefixtures("unreported")
def test_a_store_that_cannot_be_written_interrupts(
    make_job: MakeJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(holdout=0.4, publish="always")

    def full(*_: object, **__: object) -> None:
        raise StoreError("no space left in the store")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", full)
        with pytest.raises(Interrupted, match="no space left in the store"):
            run(job, store)
    assert job.state().status == "interrupted"
    assert run(job, store).published == "composition@1"


@pytest.mark.usefixtures("unreported")
def test_a_publication_that_is_refused_keeps_the_verdict(
    make_job: MakeJob, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(holdout=0.4, publish="always")

    def taken(*_: object, **__: object) -> None:
        raise NameTaken("composition", "Composition")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", taken)
        result = run(job, store)
    assert (job.state().status, result.published) == ("done", None)
    assert result.publication.startswith("not published: the name 'composition' differs")


def test_how_somebody_else_spells_a_name_is_not_noted(make_job: MakeJob, plan: Planned, store: Store) -> None:
    job = make_job(name="Blend")
    publish(store, plan(name="blend"), {"a@1": 1.0, "b@1": 0.5}, Verdict("better", 20, ""), {})
    with pytest.raises(NameTaken):
        run(job, store)
    assert job.state() == State("failed", str(NameTaken("Blend")), 0, None)


@pytest.mark.usefixtures("unreported")
def test_what_is_truncated_and_not_published_is_named_as_it_was_judged(make_job: MakeJob, store: Store) -> None:
    chosen = run(make_job(holdout=0.4, publish={"when": "never", "rank": 1}), store).chosen
    assert chosen.expression.startswith("svd(rank=1):")
    assert (chosen.rank, chosen.error) == (1, None)


def test_halving(make_job: MakeJob, store: Store) -> None:
    whole, halved = (
        make_job(examples=EXAMPLES, holdout=0.2, optimizer={"name": "CMA", "budget": 8, "halving": each})
        for each in (0, 1)
    )
    for job in (whole, halved):
        run(job, store)
    bounds = [sum(trial.bound for trial in job.trials()) for job in (whole, halved)]
    assert bounds[1] >= 4
    assert bounds[1] >= bounds[0]


def test_who_cancels_at_the_end_is_heard_too(make_job: MakeJob, store: Store) -> None:
    job = make_job(holdout=0.4, publish="always")

    def cancel(stage: str) -> None:
        if stage == "publishing":
            job.cancel()

    with pytest.raises(Cancelled):
        run(job, store, stage=cancel)
    assert "composition" not in store.names()
