"""Results as jobs on a base model of 135M parameters give them: losses of one to four nats a token, a gain or none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loraloom.compose.result import Chosen, Comparison, HeldOut, Measured, Result, Sample, System
from loraloom.compose.trials import Trial
from loraloom.compose.verdict import compared, judged, scored

NAMES = ("date", "home", "money", "name", "sql", "topic", "units", "words")
POOL = tuple(f"{name}@1" for name in NAMES)

SAMPLES = (
    Sample(
        "Write this date in ISO format, and its weekday: the 17th of October 2026",
        "2026-10-17, Saturday",
        {"composition": "2026-10-17, Saturday", "nothing": "It is a Sunday.", "best_single": "2026-10-17"},
    ),
    Sample(
        "日付をISO形式で書いてください: <script>alert('2026年10月17日')</script>\n    – eingerückt",
        "2026-10-17",
        {"composition": "2026-10-17 ", "nothing": "I'm sorry, I cannot help. " * 30, "best_single": "17.10"},
    ),
)


def result_of(
    objective: str = "loss",
    effect: float = 0.5,
    examples: int = 20,
    pool: Sequence[str] = POOL,
    leave_out: Sequence[System] = (),
) -> Result:
    """The result of a job whose composition is better than the best single adapter by about this much."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(6, 14, examples)
    shift: dict[System, float] = {
        "composition": 0.9,
        "nothing": 2.9,
        "best_single": 0.9 + effect,
        "mean": 1.9,
        "in_context": 0.8 + effect,
    }
    hard = rng.normal(0, 0.35, examples)
    values = {
        system: [
            _measured(objective, max(level + hard[row] + rng.normal(0, 0.2), 0.01), int(tokens[row]))
            for row in range(examples)
        ]
        for system, level in shift.items()
        if system not in leave_out
    }
    comparisons: dict[System, Comparison] = {
        system: compared(values["composition"], each, objective != "loss")
        for system, each in values.items()
        if system != "composition"
    }
    weights = rng.normal(0, 0.35, len(pool)).round(4)
    weights[:2] = 0.92, 0.61
    return Result(
        job="20261122T210300-weekday-4f1c",
        name="weekday",
        objective=objective,
        chosen=Chosen(
            weights=dict(zip(pool, weights.tolist(), strict=True)),
            kind="search",
            trial=37,
            loss=0.8123,
            objective=0.8371,
            expression="+".join(f"{weight}*{name}" for name, weight in zip(pool, weights.tolist(), strict=True)),
            rank=16 * len(pool),
            error=0.0,
        ),
        held_out={system: _held_out(system, each, shift[system], pool[0]) for system, each in values.items()},
        comparisons=comparisons,
        verdict=judged(comparisons, examples, objective=objective, best_single=pool[0]),
        samples=SAMPLES,
        provenance=_provenance(objective, pool, examples),
        published="weekday@3" if effect > 0.3 else None,
        publication="" if effect > 0.3 else "not published: the job says only if it is better",
    )


def trials_of(pool: Sequence[str] = POOL, budget: int = 40, folds: int = 0) -> list[Trial]:
    """A search from its baselines on, and as many more that leave an example out."""
    return [trial for fold in range(folds + 1) for trial in _search(pool, budget, fold)]


def without_in_context(result: Result) -> Result:
    """The same where the prompt with examples does not fit into the context."""
    reason = "left out: with 40 examples the prompt is longer than the model's context"
    return replace(
        result,
        held_out={system: each for system, each in result.held_out.items() if system != "in_context"},
        comparisons={system: each for system, each in result.comparisons.items() if system != "in_context"},
        provenance={**result.provenance, "in_context": reason},
    )


def _measured(objective: str, loss: float, tokens: int) -> Measured:
    return Measured(loss * tokens, tokens) if objective == "loss" else Measured(float(loss < 1.3), 1)


def _held_out(system: System, values: Sequence[Measured], loss: float, best: str) -> HeldOut:
    details = {"best_single": best, "in_context": "20 examples in the prompt"}
    tokens = 812.0 if system == "in_context" else 46.5
    return HeldOut(*scored(values), loss, 0.1 if loss > 2 else 0.6, tokens, details.get(system, ""))


def _search(pool: Sequence[str], budget: int, fold: int) -> list[Trial]:
    rng = np.random.default_rng(fold)
    size = len(pool)
    plan = [("none", 3.05), *(("single", level) for level in rng.uniform(1.6, 3.4, size)), ("mean", 2.0)]
    for step in range(budget):
        plan.append(("search", 0.85 + 2.2 * np.exp(-step / 12) * rng.uniform(0.1, 1.2) + rng.exponential(0.15)))
    if budget > 20:
        plan[size + 8] = ("search", 61.0)
        plan[size + 14] = ("search", 9.5)
        plan[37] = ("search", 0.8371)
    return [
        Trial(number, fold, kind, dict.fromkeys(pool, 0.1), level - 0.02, level, kind == "search" and level > 1.9, 0.31)
        for number, (kind, level) in enumerate(plan)
    ]


def _provenance(objective: str, pool: Sequence[str], examples: int) -> dict[str, object]:
    digests = [f"{place:02x}" * 32 for place in range(len(pool))]
    return {
        "job": "20261122T210300-weekday-4f1c",
        "base": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "pool": [{"adapter": name, "digest": each, "rank": 16} for name, each in zip(pool, digests, strict=True)],
        "preselect": None,
        "method": "exact",
        "scorer": "torch",
        "objective": objective,
        "optimizer": {"name": "CMA", "budget": 40, "seed": 0, "bounds": [-1.5, 1.5], "l1": 0.05, "early_stop": True},
        "examples": {"sha256": "9b" * 32, "seen": 20, "held_out": examples, "holdout": "half of them"},
        "versions": {"loraloom": "0.1.0", "nevergrad": "1.0.12", "torch": "2.13.0"},
    }
