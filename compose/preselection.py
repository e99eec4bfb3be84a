"""Preselection: the adapters of a large pool that a search may use."""

import json
from collections.abc import Sequence
from pathlib import Path

from loraloom.compose.backends import Backend
from loraloom.compose.errors import DamagedJob
from loraloom.compose.files import write_whole
from loraloom.compose.holdout import Fold
from loraloom.compose.plan import Plan
from loraloom.compose.pool import Member

AT_ONCE = 32
"""Adapters of the pool that are held in memory together."""


def picks(backend: Backend, plan: Plan, path: Path) -> list[tuple[int, ...]]:
    """For each search the indexes of the adapters that it may use, in the pool's order.

    They are chosen by the examples that the search sees, so that nothing leaks from those that it is judged by.

    Args:
        backend: scores.
        plan: the job.
        path: where the comparison is kept, so that it is made once.

    Raises:
        DamagedJob: what is there goes with another job.
    """
    every = tuple(range(len(plan.pool.members)))
    keep = plan.spec.pool.preselect
    if keep is None or keep >= len(every):
        return [every for _ in plan.holdout.folds]
    values = _kept(path, plan) or _compared(backend, plan, path)
    return [_smallest(values, fold, keep) for fold in plan.holdout.folds]


def _smallest(values: Sequence[Sequence[float]], fold: Fold, keep: int) -> tuple[int, ...]:
    means = [sum(adapter[example] for example in fold.seen) for adapter in values]
    return tuple(sorted(sorted(range(len(means)), key=means.__getitem__)[:keep]))


def _kept(path: Path, plan: Plan) -> list[list[float]] | None:
    if not path.exists():
        return None
    kept = json.loads(path.read_bytes())
    if kept["adapters"] != list(plan.pool.names):
        raise DamagedJob(f"{path} is about other adapters than this job: start the job anew")
    values: list[list[float]] = kept["values"]
    return values


def _compared(backend: Backend, plan: Plan, path: Path) -> list[list[float]]:
    """[adapters, examples]: how each adapter does alone on each example; less is better."""
    members = plan.pool.members
    parts = [members[start : start + AT_ONCE] for start in range(0, len(members), AT_ONCE)]
    values = [row for part in parts for row in _part(backend, plan, part)]
    write_whole(path, json.dumps({"by": plan.spec.pool.by, "adapters": plan.pool.names, "values": values}) + "\n")
    return values


def _part(backend: Backend, plan: Plan, members: Sequence[Member]) -> list[list[float]]:
    if plan.spec.pool.by == "similarity":
        return backend.similarity(members, [each.rows[each.right] for each in plan.task.questions])
    alone = [tuple(float(each == one) for each in range(len(members))) for one in range(len(members))]
    scored = backend.scorer(members).score(alone, plan.task.rows)
    return [[task.value(part) for task, part in plan.task.each(scores)] for scores in scored]
