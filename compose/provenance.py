"""Where a composition comes from: what another needs in order to make it again."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version

from loraloom.compose.examples import digest
from loraloom.compose.jobs import Job
from loraloom.compose.plan import Plan
from loraloom.compose.publication import rank_of
from loraloom.compose.result import HeldOut, System, Verdict
from loraloom.compose.search import Found

PACKAGES = ("loraloom", "nevergrad", "torch", "transformers")
"""Whose versions decide what comes out."""


def provenance_of(job: Job, plan: Plan, weights: Mapping[str, float]) -> dict[str, object]:
    """What a job was made of, as JSON."""
    spec, holdout = plan.spec, plan.holdout
    return {
        "job": job.id,
        "created": job.created,
        "base": plan.pool.base,
        "pool": [member.as_json() for member in job.pool.members],
        "preselect": spec.pool.preselect and {"keep": spec.pool.preselect, "by": spec.pool.by},
        "method": spec.method,
        "scorer": spec.scorer,
        "objective": spec.objective,
        "optimizer": spec.optimizer.model_dump(mode="json"),
        "examples": {
            "sha256": digest(holdout.examples),
            "seen": holdout.seen,
            "held_out": holdout.held,
            "holdout": holdout.kind,
        },
        "rank_before": rank_of(plan, weights),
        "versions": {name: version(name) for name in PACKAGES},
        "threads": job.threads,
    }


def published_provenance(
    provenance: Mapping[str, object], found: Found, held_out: Mapping[System, HeldOut], verdict: Verdict
) -> dict[str, object]:
    """The same with what came out, for the store's record of the version."""
    scores = {system: asdict(each) for system, each in held_out.items()}
    loss = {"loss": found.best.loss, "objective": found.best.objective}
    return {**provenance, "seen": loss, "held_out": scores, "verdict": str(verdict)}
