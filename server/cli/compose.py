"""`loraloom compose …`: jobs that learn a weighting of adapters from a few examples."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from loraloom.adapters.errors import AdapterError
from loraloom.adapters.store import Store
from loraloom.compose.errors import ComposeError, Interrupted
from loraloom.compose.jobs import Job, Jobs
from loraloom.compose.plan import planned, with_examples
from loraloom.compose.run import Progress, Stage
from loraloom.compose.run import report as draw_report
from loraloom.compose.run import run as run_job
from loraloom.compose.spec import KEY, JobSpec, read_spec
from loraloom.compose.trials import Trial
from loraloom.server.cli.compose_text import found, heading, plan_text, standing
from loraloom.server.cli.options import configured, user
from loraloom.server.cli.tables import table
from loraloom.server.store import open_store

Options = argparse.Namespace
Extra = Sequence[str]


def init(options: Options, _: Extra) -> int:
    """Write a commented job."""
    from loraloom.compose.template import write_template

    write_template(options.file)
    print(f"wrote {options.file}: fill in the examples, then `loraloom compose run {options.file}`")
    return 0


def run(options: Options, _: Extra) -> int:
    """Check a job, write it down, and run it."""
    settings = configured(options).settings
    spec = with_examples(read_spec(options.spec))
    if options.base:
        spec = spec.model_copy(update={"base": options.base})
    store = open_store(settings, create=False)
    if options.check:
        print(plan_text(planned(spec, store)))
        return 0
    return run_spec(spec, store, settings.jobs)


def run_spec(spec: JobSpec, store: Store, jobs: Path) -> int:
    """Write a job down in the folder `jobs` and run it; returns the exit status."""
    plan = planned(spec, store)
    print(plan_text(plan))
    job = Jobs(jobs).create(plan, store.url)
    print(f"job {job.id} in {job.folder}", flush=True)
    return _run(job, store, plan.trials)


def resume(options: Options, _: Extra) -> int:
    """Go on with a job."""
    job, store = _job_and_store(options)
    return _run(job, store, None)


def list_jobs(options: Options, _: Extra) -> int:
    """One line a job."""
    jobs = [(job, job.state()) for job in Jobs(configured(options).settings.jobs).list()]
    if options.json:
        print(json.dumps([{"id": job.id, "created": job.created, **asdict(state)} for job, state in jobs], indent=2))
        return 0
    best = [(job, state, "-" if state.best is None else f"{state.best:.4g}") for job, state in jobs]
    rows = [(job.id, state.status, str(state.trials), best, job.created) for job, state, best in best]
    table(("ID", "STATUS", "TRIALS", "BEST", "CREATED"), rows)
    return 0


def show(options: Options, _: Extra) -> int:
    """Where a job stands, or what it has found."""
    job = _job(options)
    state, result = job.state(), job.result()
    if options.json:
        value = {"id": job.id, "created": job.created, "folder": str(job.folder), **asdict(state)}
        print(json.dumps({**value, "result": result and asdict(result)}, indent=2))
        return 0
    print(heading(job))
    print(standing(job, state) if result is None else found(result))
    return 0


def report(options: Options, _: Extra) -> int:
    """Draw the report again; of a job that is not done, say so."""
    job = _job(options)
    if job.result() is None:
        print(f"loraloom: {standing(job, job.state())}", file=sys.stderr)
        return 1
    draw_report(job)
    print(job.folder / "report.html", job.folder / "report.png", sep="\n")
    return 0


def cancel(options: Options, _: Extra) -> int:
    """Let whoever runs it end it; one that is done stays as it is."""
    job = _job(options)
    if job.result() is not None:
        print(f"loraloom: {job.id} is done: there is nothing to cancel", file=sys.stderr)
        return 1
    running = job.state().status == "running"
    job.cancel()
    print(f"{job.id} {'ends after the candidates that it is at' if running else 'does not go on until it is resumed'}")
    return 0


def _run(job: Job, store: Store, trials: int | None) -> int:
    try:
        with _progress(trials) as (progress, stage):
            result = run_job(job, store, progress, stage, by=user(), key=os.environ.get(KEY))
    except Interrupted as error:
        print(f"loraloom: {error}. `loraloom compose resume {job.id}` goes on", file=sys.stderr)
        return 130 if isinstance(error.__cause__, KeyboardInterrupt) else 1
    except (ComposeError, AdapterError, OSError):
        raise
    except Exception:
        # Caught, since nevergrad's Cobyla has a thread that an uncaught error would keep alive.
        traceback.print_exc()
        return 1
    print(found(result))
    print(f"report: {job.folder / 'report.html'}")
    return 0


@contextmanager
def _progress(trials: int | None) -> Iterator[tuple[Progress, Stage]]:
    """A bar of the trials, with the best objective so far."""
    from tqdm import tqdm

    best: dict[int, float] = {}
    with tqdm(total=trials, unit="trial", disable=None) as bar:

        def progress(trial: Trial) -> None:
            if not trial.bound:
                best[trial.fold] = min(trial.objective, best.get(trial.fold, trial.objective))
            bar.set_postfix_str(f"best {best[trial.fold]:.4f}" if trial.fold in best else "")
            bar.update()

        yield progress, bar.set_description_str


def _job(options: Options) -> Job:
    return Jobs(configured(options).settings.jobs).get(options.id)


def _job_and_store(options: Options) -> tuple[Job, Store]:
    job, settings = _job(options), configured(options).settings
    return job, open_store(settings.model_copy(update={"adapters": job.store}), create=False)
