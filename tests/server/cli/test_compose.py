"""`loraloom compose`: jobs on a tiny model."""

import json
from pathlib import Path

import pytest
import yaml

from loraloom.adapters.base import fingerprint
from loraloom.adapters.names import Adapter
from loraloom.adapters.store import Store
from loraloom.compose.jobs import Job, Jobs
from loraloom.compose.log import TrialLog
from loraloom.compose.trials import Trial
from tests.compose.conftest import EXAMPLES
from tests.server.cli.conftest import Loraloom
from tests.tiny_models import MakeAdapter


@pytest.fixture
def store(tiny_base: Path, make_adapter: MakeAdapter, home: Path) -> Store:
    """The adapters a and b of the tiny base, where the command line looks for them."""
    store, base = Store.open(home / ".local/share/loraloom/store"), fingerprint(tiny_base)
    for seed, name in enumerate(("a", "b")):
        store.publish(make_adapter(name, seed=seed), name, base=base, base_name=str(tiny_base))
    return store


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A small job that publishes what it finds."""
    path = tmp_path / "job.yaml"
    fields = {"name": "blend", "examples": EXAMPLES, "holdout": 0.4, "optimizer": {"budget": 3}, "publish": "always"}
    path.write_text(yaml.safe_dump(fields))
    return path


def only_job(home: Path) -> Job:
    (job,) = Jobs(home / ".local/share/loraloom/jobs").list()
    return job


def test_a_job_from_the_command_line(loraloom: Loraloom, store: Store, spec: Path, home: Path) -> None:
    outcome = loraloom("compose", "run", spec)
    job = only_job(home)
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].endswith(": a@1, b@1")
    assert lines[1] == "3 examples to learn from, 2 to judge by (0.4 of the examples)"
    assert lines[2] == "8 trials: 1 search of 4 baselines and 3 candidates by Cobyla, seed 0"
    assert lines[3] == f"job {job.id} in {job.folder}"
    assert lines[4].startswith("undecidable with 2 examples: ")
    assert lines[5] == "published as blend@1"
    assert lines[-1] == f"report: {job.folder / 'report.html'}"
    record = store.resolve(Adapter("blend"))
    assert record.provenance["composed"]["job"] == job.id  # type: ignore[index]
    shown = loraloom("compose", "show", job.id)
    assert shown.out.splitlines()[0].startswith(f"{job.id}  created ")
    assert lines[4] in shown.out
    listed = loraloom("compose", "list").out.splitlines()
    assert listed[0].split() == ["ID", "STATUS", "TRIALS", "BEST", "CREATED"]
    assert listed[1].split()[:3] == [job.id, "done", "8"]
    assert json.loads(loraloom("compose", "list", "--json").out)[0]["status"] == "done"
    told = json.loads(loraloom("compose", "show", job.id, "--json").out)
    assert told["result"]["published"] == "blend@1"
    assert loraloom("compose", "cancel", job.id).err == f"loraloom: {job.id} is done: there is nothing to cancel\n"
    (job.folder / "report.png").unlink()
    assert str(job.folder / "report.png") in loraloom("compose", "report", job.id).out
    assert (job.folder / "report.png").exists()
    provenance = loraloom("adapters", "show", "blend").out
    assert f"blend@1 composed by job {job.id}: undecidable with 2 examples" in provenance


def test_checking_writes_nothing(loraloom: Loraloom, store: Store, spec: Path, home: Path) -> None:
    outcome = loraloom("compose", "run", spec, "--check")
    assert (outcome.status, len(outcome.out.splitlines())) == (0, 3)
    assert not (home / ".local/share/loraloom/jobs").exists()


def test_stopping_and_going_on(
    loraloom: Loraloom, store: Store, spec: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = TrialLog.append

    def stop(log: TrialLog, trials: list[Trial]) -> None:
        append(log, trials)
        if trials[-1].trial >= 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrialLog, "append", stop)
        outcome = loraloom("compose", "run", spec)
    job = only_job(home)
    assert outcome.status == 130
    assert outcome.err == f"loraloom: it was stopped. `loraloom compose resume {job.id}` goes on\n"
    assert "interrupted after 5 trials" in loraloom("compose", "show", job.id).out
    assert loraloom("compose", "report", job.id).err.startswith("loraloom: interrupted after 5 trials")
    again = loraloom("compose", "resume", job.id)
    assert (again.status, again.err) == (0, "")
    assert job.state().status == "done"


def test_a_job_that_waits_can_be_cancelled(loraloom: Loraloom, store: Store, spec: Path, home: Path) -> None:
    from loraloom.compose.plan import planned
    from loraloom.compose.spec import read_spec

    job = Jobs(home / ".local/share/loraloom/jobs").create(planned(read_spec(spec), store), store.url)
    assert loraloom("compose", "cancel", job.id).status == 0
    assert job.state().status == "cancelled"


def test_a_job_to_begin_with(loraloom: Loraloom, home: Path) -> None:
    outcome = loraloom("compose", "init")
    assert outcome.out == "wrote job.yaml: fill in the examples, then `loraloom compose run job.yaml`\n"
    assert (home / "job.yaml").exists()
    again = loraloom("compose", "init")
    assert (again.status, again.err) == (1, "loraloom: job.yaml is there already: give another name, or remove it\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"examples": []}, "there are no examples"),
        ({"examples": EXAMPLES[:1]}, "give 2 at the least"),
        ({"examples": "none.jsonl"}, "cannot be read"),
        ({"optimizer": {"budget": 0}}, "optimizer.budget"),
        ({"optimizer": {"name": "Adam"}}, "there are NGOpt, Cobyla, CMA"),
        ({"pool": ["a"]}, "the pool has 1 adapters"),
        ({"pool": ["a", "nobody"]}, "there is no adapter 'nobody'"),
        ({"holdout": EXAMPLES[:1]}, "example 1 is in the hold-out too"),
        ({"base": "nobody/nothing-of-this-name"}, "cannot be found"),
    ],
)
def test_bad_jobs_are_refused_before_anything_is_made(
    loraloom: Loraloom, store: Store, spec: Path, home: Path, fields: dict[str, object], message: str
) -> None:
    spec.write_text(yaml.safe_dump({**yaml.safe_load(spec.read_text()), **fields}))
    outcome = loraloom("compose", "run", spec)
    assert (outcome.status, outcome.out) == (1, "")
    assert message in outcome.err
    assert not (home / ".local/share/loraloom/jobs").exists()


def test_a_folder_that_cannot_be_written_is_told(loraloom: Loraloom, store: Store, spec: Path) -> None:
    outcome = loraloom("compose", "run", spec, "--jobs", "/proc/jobs")
    assert outcome.status == 1
    assert "/proc/jobs" in outcome.err


def test_a_job_that_is_not_there(loraloom: Loraloom, home: Path) -> None:
    for command in ("show", "report", "resume", "cancel"):
        outcome = loraloom("compose", command, "nobody")
        assert (outcome.status, "there is no job 'nobody'" in outcome.err) == (1, True)
    assert loraloom("compose", "list").out.split() == ["ID", "STATUS", "TRIALS", "BEST", "CREATED"]


def test_what_the_disk_says_is_told_in_a_line(loraloom: Loraloom, store: Store, spec: Path, home: Path) -> None:
    from loraloom.compose.plan import planned
    from loraloom.compose.spec import read_spec

    job = Jobs(home / ".local/share/loraloom/jobs").create(planned(read_spec(spec), store), store.url)
    (job.folder / "lock").mkdir()
    outcome = loraloom("compose", "resume", job.id)
    assert outcome.status == 1
    assert outcome.err.startswith("loraloom: [Errno 21]")
    assert "Traceback" not in outcome.err
