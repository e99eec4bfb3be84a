"""What the command line says about jobs."""

from collections.abc import Mapping
from typing import Any

from loraloom.compose.jobs import Job, State
from loraloom.compose.plan import Plan
from loraloom.compose.result import Comparison, HeldOut, Result, System

NAMES: Mapping[System, str] = {
    "composition": "composition",
    "nothing": "base alone",
    "best_single": "best adapter alone",
    "mean": "uniform mean",
    "in_context": "examples in the prompt",
}


def plan_text(plan: Plan) -> str:
    """What a job will do."""
    holdout, optimizer = plan.holdout, plan.spec.optimizer
    searches = len(holdout.folds)
    return "\n".join(
        (
            f"{len(plan.pool.members)} adapters of {plan.pool.base}: {', '.join(plan.pool.names[:8])}"
            + (", …" if len(plan.pool.members) > 8 else ""),
            f"{holdout.seen} examples to learn from, {holdout.held} to judge by ({holdout.kind})",
            f"{plan.trials} trials: {searches} {'search' if searches == 1 else 'searches'} of {plan.adapters + 2} "
            f"baselines and {optimizer.budget} candidates by {optimizer.name}, seed {optimizer.seed}",
        )
    )


def heading(job: Job) -> str:
    """Which job."""
    return f"{job.id}  created {job.created}  {job.folder}"


def standing(job: Job, state: State) -> str:
    """Where a job that is not done stands."""
    best = "" if state.best is None else f", best objective {state.best:.4f}"
    reason = f": {state.reason}" if state.reason else ""
    after = "" if state.status == "running" else f". `loraloom compose resume {job.id}` goes on"
    return f"{state.status} after {state.trials} trials{best}{reason}{after}"


def found(result: Result) -> str:
    """What a job has found, the verdict first."""
    lines = [f"{result.verdict}: {result.verdict.reason}", result.publication, f"model: {result.chosen.expression}", ""]
    unit = "nats a token, less is better" if result.objective == "loss" else "share right, more is better"
    lines.append(f"{'held out (' + unit + ')':<44}  score    95% interval    gain of the composition")
    for system, name in NAMES.items():
        if system in result.held_out:
            lines.append(_line(name, result.held_out[system], result.comparisons.get(system)))
    return "\n".join(lines)


def composed_text(provenance: Mapping[str, Any]) -> str | None:
    """What the record of a composed version says of itself, in four lines; None of another one."""
    try:
        return _composed(provenance, provenance["composed"])
    except (KeyError, TypeError):
        return None


def _composed(provenance: Mapping[str, Any], composed: Mapping[str, Any]) -> str:
    optimizer, examples = composed["optimizer"], composed["examples"]
    by = f"{optimizer['name']} (nevergrad {composed['versions']['nevergrad']})"
    scores = (f"{system}{_detail(each)} {each['score']:.4g}" for system, each in composed["held_out"].items())
    return "\n  ".join(
        (
            f"composed by job {composed['job']}: {composed['verdict']}",
            f"{provenance['mixture']}, rank {composed['rank_before']} -> {provenance['rank']}, relative error of "
            f"truncation {provenance['error']:.3g}",
            f"{by}, budget {optimizer['budget']}, seed {optimizer['seed']}; {examples['seen']} examples seen, "
            f"{examples['held_out']} held out; loss on those seen {composed['seen']['loss']:.4g}",
            f"held out: {', '.join(scores)}",
        )
    )


def _detail(held_out: Mapping[str, Any]) -> str:
    return f" ({held_out['detail']})" if held_out.get("detail") else ""


def _line(name: str, held_out: HeldOut, comparison: Comparison | None) -> str:
    detail = f" ({held_out.detail})" if held_out.detail else ""
    line = f"{name + detail:<44} {held_out.score:>6.3f}  {held_out.low:>6.3f} to {held_out.high:<6.3f}"
    if comparison is None:
        return line.rstrip()
    return f"{line}  {comparison.gain:+.3f} ({comparison.low:+.3f} to {comparison.high:+.3f}), p {comparison.p:.3g}"
