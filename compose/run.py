"""A job from its beginning, or from where it was interrupted, to its verdict."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from loraloom.adapters.errors import AdapterError, DamagedBlob, StoreError
from loraloom.adapters.store import Store
from loraloom.compose.backends import Backend, opened
from loraloom.compose.errors import Cancelled, Interrupted
from loraloom.compose.evaluation import Searched, Tally, samples, tallied
from loraloom.compose.jobs import Ended, Job
from loraloom.compose.log import TrialLog
from loraloom.compose.plan import Plan, planned
from loraloom.compose.preselection import picks
from loraloom.compose.provenance import provenance_of, published_provenance
from loraloom.compose.publication import Publication, composition, publish, rank_of, telling_no_names, truncates
from loraloom.compose.recorder import Choice, Recorder
from loraloom.compose.result import Chosen, Comparison, Result, System
from loraloom.compose.search import search
from loraloom.compose.trials import Trial

Progress = Callable[[Trial], None]
"""Told of every trial, also of those of an earlier run."""
Stage = Callable[[str], None]
"""Told what is done next, in a few words."""


def run(
    job: Job,
    store: Store,
    progress: Progress = lambda _: None,
    stage: Stage = lambda _: None,
    by: str | None = None,
    key: str | None = None,
) -> Result:
    """Run a job, or go on with one; one that is done gives its result.

    Args:
        job: which.
        store: where its adapters are, and where the composition goes.
        progress: told of every trial.
        stage: told of every stage.
        by: who publishes.
        key: of the server that scores, if it wants one.

    Raises:
        JobBusy: another process runs it.
        Interrupted: it ended early and can be resumed, as `Job.state` tells too.
        ComposeError, AdapterError: it cannot be done; `Job.state` tells why.
    """
    with job.running():
        if (done := job.result()) is not None:
            if not (job.folder / "report.html").exists():
                report(job)
            return done
        try:
            with telling_no_names():
                return _run(job, store, progress, stage, by, key)
        except (Exception, KeyboardInterrupt) as error:
            raise _ended(job, error) from error


def _run(job: Job, store: Store, progress: Progress, stage: Stage, by: str | None, key: str | None) -> Result:
    stage("reading the examples")
    plan = planned(job.spec, store, job.pool)
    stage("loading the model" if plan.spec.scorer == "torch" else f"asking {plan.spec.server.url}")
    with opened(job, store, plan.adapters, key) as backend:
        plan, searched = _searched(job, plan, backend, progress, stage)
        stage("judging on the held-out examples")
        result = _judged(job, plan, searched, backend)
    stage("publishing")
    _heed(job)
    result = _published(store, plan, searched, result, by)
    job.finish(result)
    stage("writing the report")
    report(job)
    return result


def report(job: Job) -> None:
    """Draw the report of a job that is done."""
    from loraloom.compose.report.report import write_report

    result = job.result()
    assert result is not None, "the job is done"
    write_report(result, job.trials(), job.folder)


def _heed(job: Job) -> None:
    if job.cancelled:
        raise Cancelled(f"the job was cancelled: `loraloom compose resume {job.id}` goes on with it")


def _searched(job: Job, plan: Plan, backend: Backend, progress: Progress, stage: Stage) -> tuple[Plan, list[Searched]]:
    """Every search, and the plan with what is left of the pool."""
    if plan.spec.pool.preselect:
        stage("comparing the adapters of the pool")
    chosen = picks(backend, plan, job.folder / "preselection.json")
    used = sorted({each for picked in chosen for each in picked})
    plan = plan.of(used)
    _heed(job)
    scorer, log = backend.scorer(plan.pool.members), TrialLog(job.folder / "trials.jsonl")
    plan = plan.within(backend.context)

    def told(trial: Trial) -> None:
        progress(trial)
        _heed(job)

    searched = []
    for fold, picked in zip(plan.holdout.folds, chosen, strict=True):
        stage("searching" if fold.number == 0 else f"searching without example {fold.number}")
        choice = Choice(plan.pool.names, tuple(map(used.index, picked)))
        task, settings = plan.task.only(fold.seen), plan.spec.optimizer
        evaluate = Recorder(scorer, task, choice, settings.l1, log, fold.number, told, settings.halving)
        found = search(evaluate, len(picked), settings, plan.spec.method == "lorahub")
        searched.append(Searched(fold, choice, found))
    _heed(job)
    return plan, searched


def _judged(job: Job, plan: Plan, searched: Sequence[Searched], backend: Backend) -> Result:
    from loraloom.compose.verdict import WORTH, judged

    tallies = tallied(plan, searched, backend)
    held_out = {system: tally.held_out() for system, tally in tallies.items() if tally.measured}
    comparisons = _comparisons(plan, tallies)
    kept, weights = searched[0], searched[0].choice.named(searched[0].found.weights)
    best, truncated = kept.found.best, truncates(plan, weights)
    mixture = composition(plan, weights, truncated)
    provenance = provenance_of(job, plan, weights)
    if "in_context" not in held_out:
        provenance["in_context"] = tallies["in_context"].detail
    return Result(
        job=job.id,
        name=plan.spec.name,
        objective=plan.spec.objective,
        chosen=Chosen(
            weights=weights,
            kind=best.kind,
            trial=best.trial,
            loss=best.loss,
            objective=best.objective,
            expression=plan.pool.base if mixture is None else str(mixture),
            rank=plan.rank if truncated and plan.rank else rank_of(plan, weights),
            error=None if truncated else 0.0,
        ),
        held_out=held_out,
        comparisons=comparisons,
        verdict=judged(
            comparisons, plan.holdout.held, WORTH, objective=plan.spec.objective, best_single=searched[0].single
        ),
        samples=samples(plan, searched, backend),
        provenance=provenance,
    )


def _comparisons(plan: Plan, tallies: Mapping[System, Tally]) -> dict[System, Comparison]:
    from loraloom.compose.verdict import compared

    composed, higher = tallies["composition"].measured, plan.spec.objective != "loss"
    others = {system: tally.measured for system, tally in tallies.items() if system != "composition" and tally.measured}
    return {system: compared(composed, measured, higher) for system, measured in others.items()}


def _published(store: Store, plan: Plan, searched: Sequence[Searched], result: Result, by: str | None) -> Result:
    provenance = published_provenance(result.provenance, searched[0].found, result.held_out, result.verdict)
    try:
        made = publish(store, plan, result.chosen.weights, result.verdict, provenance, by)
    except StoreError:  # it can be written later, perhaps
        raise
    except AdapterError as error:  # what was found is still worth knowing
        made = Publication(None, f"not published: {error}")
    chosen = result.chosen
    if made.version is not None:
        chosen = replace(chosen, rank=made.rank, error=made.error)
    return replace(result, chosen=chosen, published=made.version, publication=made.reason)


def _ended(job: Job, error: BaseException) -> BaseException:
    """Note why the job ended, and what to raise."""
    status: Ended = "failed"
    ours = isinstance(error, AdapterError) and not (
        isinstance(error, StoreError) and not isinstance(error, DamagedBlob)
    )
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("it was stopped")
    elif isinstance(error, OSError) and not ours:
        error = Interrupted(f"{error}: repair that, or make room, and resume the job")
    if isinstance(error, Interrupted):
        status = "cancelled" if isinstance(error, Cancelled) else "interrupted"
    with suppress(OSError):  # a full disk must not hide why
        job.end(status, str(error) or type(error).__name__)
    return error
