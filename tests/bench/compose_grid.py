"""Whether a job finds what is known to be there: the demo's job on two tasks beside a grid over both weights.

The grid is scored on the held-out examples themselves, so its best is more than any search can know.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.compose.backends import opened
from loraloom.compose.jobs import Job, Jobs
from loraloom.compose.plan import Plan, planned, with_examples
from loraloom.compose.run import run as run_job
from loraloom.compose.scoring import RowScore, Weights
from loraloom.compose.spec import read_spec
from loraloom.demo.catalog import demo_adapters, demo_jobs
from loraloom.demo.model import prepare
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.registry import Benchmark

FINE = tuple(round(0.1 * step, 1) for step in range(13))
COARSE = (0.0, 0.4, 0.7, 1.0)
WANTED = 0.95
AT_ONCE = 8


@dataclass(frozen=True)
class Point:
    """What a pair of weights does on the held-out examples: nats a token, and the share of right answers."""

    weights: Weights
    loss: float
    exact: float


def run(folder: Path, full: bool) -> Outcome:
    """Run the job for some seeds, and score the grid."""
    base = prepare()
    store = Store.open(folder / "compose_grid/store")
    for adapter in demo_adapters():
        store.publish(adapter.folder, adapter.name, base=fingerprint(base), base_name=str(base))
    spec = with_examples(read_spec(demo_jobs()["two-tasks"])).model_copy(update={"base": str(base)})
    found = {}
    for seed in range(3 if full else 1):
        update = {"optimizer": spec.optimizer.model_copy(update={"seed": seed})}
        plan = planned(spec.model_copy(update=update), store)
        job = Jobs(folder / "compose_grid/jobs").create(plan, store.url)
        composition = run_job(job, store).held_out["composition"]
        found[seed] = (composition.loss, composition.exact)
    return outcome(found, grid(job, plan, store, FINE if full else COARSE))


def grid(job: Job, plan: Plan, store: Store, steps: Sequence[float]) -> list[Point]:
    """Every pair of weights of the first two adapters, on the held-out examples."""
    task = plan.task.only(plan.holdout.folds[0].held)
    rest = (0.0,) * (len(plan.pool.members) - 2)
    points = [(first, second, *rest) for first, second in itertools.product(steps, steps)]
    scored: list[list[RowScore]] = []
    with opened(job, store, len(plan.pool.members)) as backend:
        scorer = backend.scorer(plan.pool.members)
        for start in range(0, len(points), AT_ONCE):
            scored += scorer.score(points[start : start + AT_ONCE], task.rows)
    return [Point(p, task.loss(scores), task.exact(scores)) for p, scores in zip(points, scored, strict=True)]


def outcome(found: Mapping[int, tuple[float, float]], points: Sequence[Point]) -> Outcome:
    """What it comes to."""
    nothing = next(point for point in points if not any(point.weights))
    best = min(points, key=lambda point: point.loss)
    right = max(points, key=lambda point: point.exact)
    rows = [("nothing", f"{nothing.loss:.4f}", f"{nothing.exact:.0%}", "")]
    rows += [
        (f"{name} {point.weights[0]:g}, {point.weights[1]:g}", f"{point.loss:.4f}", f"{point.exact:.0%}", "")
        for name, point in (("grid, least loss:", best), ("grid, most right:", right))
    ]
    share = {seed: (nothing.loss - loss) / (nothing.loss - best.loss) for seed, (loss, _) in found.items()}
    for seed, (loss, exact) in found.items():
        rows.append((f"job, seed {seed}", f"{loss:.4f}", f"{exact:.0%}", f"{share[seed]:.1%}"))
    return Outcome(
        runs=len(found),
        parameters={"grid": len(points), "best": list(best.weights), "most_right": list(right.weights)},
        results={"share_of_gain": {str(seed): value for seed, value in share.items()}},
        samples={
            "grid": [[list(p.weights), p.loss, p.exact] for p in points],
            "jobs": [list(f) for f in found.values()],
        },
        table=Table(("", "nats a token", "right", "of the grid's gain"), tuple(rows)),
        goals=tuple(
            goal
            for seed, (_, exact) in found.items()
            for goal in (
                Goal(f"seed {seed}: gain in loss that is missing, of the grid's best", 1 - WANTED, 1 - share[seed]),
                Goal(
                    f"seed {seed}: right answers that are missing, of the grid's most",
                    1 - WANTED,
                    1 - exact / right.exact,
                ),
            )
        ),
    )


BENCHMARK = Benchmark("compose_grid", "a job on two tasks beside a grid over both weights", run, by_default=False)
