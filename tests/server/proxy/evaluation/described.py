"""A comparison of two tiny models on two tasks: the description with all its files, and what might come out."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loraloom.server.proxy.evaluation.arms import LARGE, LARGE_TUNED, SHOTS, SMALL, SMALL_TUNED, Arm, arms_of
from loraloom.server.proxy.evaluation.asking import Answer, Asked
from loraloom.server.proxy.evaluation.models import Models
from loraloom.server.proxy.evaluation.outcome import Measured, result_of
from loraloom.server.proxy.evaluation.plan import Plan
from loraloom.server.proxy.evaluation.questions import Question
from loraloom.server.proxy.evaluation.result import Result
from loraloom.server.proxy.evaluation.rounds import Round, bounds
from loraloom.server.proxy.evaluation.spec import EvaluationSpec, TaskSpec
from loraloom.server.proxy.evaluation.task import Task
from tests.adapters.small_adapters import small_adapter
from tests.server.proxy.configurations import LLAMA31_8B, LLAMA31_70B, write_model

WEIGHTS = {"model.layers.0.self_attn.q_proj.weight": (8, 8)}
"""The one module that `small_adapter` changes."""
SMALL_CONFIG, LARGE_CONFIG = ({**config, "vocab_size": 8} for config in (LLAMA31_8B, LLAMA31_70B))
CHANCE = {LARGE: 0.05, SHOTS: 0.3, SMALL: 0.0, SMALL_TUNED: 0.6, LARGE_TUNED: 0.9}
SPEED = {LARGE: 900.0, SHOTS: 850.0, SMALL: 2400.0, SMALL_TUNED: 2200.0, LARGE_TUNED: 870.0}


def write_questions(path: Path, questions: Sequence[tuple[str, str]]) -> Path:
    """A JSONL file of prompts and what is expected."""
    lines = (json.dumps({"prompt": prompt, "expected": expected}) for prompt, expected in questions)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def asked(task: str, kind: str, count: int) -> list[tuple[str, str]]:
    """Questions of a task; what is expected of them stands in the prompt."""
    return [(f"{task} {kind} {number}", f"{task} answer {number}") for number in range(count)]


def described(folder: Path, **fields: Any) -> dict[str, Any]:
    """Write all files of a comparison of the tasks `date` and `sql`; returns its description."""
    weights = {"weights": WEIGHTS}
    write_model(folder / "large-model", LARGE_CONFIG, **weights)
    write_model(folder / "small-model", SMALL_CONFIG, **weights)
    return {
        "large": "large-model",
        "small": "small-model",
        "shots": 2,
        "concurrency": 2,
        "speed_rounds": 2,
        "start_timeout": 120,
        "tasks": [_task(folder, name, seed) for seed, name in enumerate(("date", "sql"))],
        **fields,
    }


def written(folder: Path, description: Mapping[str, Any]) -> Path:
    """The description as a file."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(dict(description)))
    return path


def plan_of(
    tasks: Sequence[str] = ("date", "sql"),
    questions: int = 40,
    small_adapter: Path | None = Path("small"),
    large_adapter: Path | None = Path("large"),
    **fields: Any,
) -> Plan:
    """A plan without any file; the adapters are those of every task."""
    adapters = {"small_adapter": small_adapter, "large_adapter": large_adapter}
    specs = tuple(TaskSpec(name=name, test=Path("t"), shots=Path("s"), **adapters) for name in tasks)
    spec = EvaluationSpec(**{"large": "org/large", "small": "org/small", "tasks": specs, "shots": 2, **fields})
    read = (
        Task(each, _questions(each.name, "test", questions), _questions(each.name, "shot", 2), "")
        for each in spec.tasks
    )
    return Plan(spec, spec, Models(spec.large, spec.small, spec.expert), tuple(read), "{{ messages }}", spec.vllm)


def measured_of(plan: Plan, arms: Sequence[Arm] | None = None, chances: Mapping[str, float] = CHANCE) -> Measured:
    """What servers might give: each arm is right by its own chance."""
    taken = arms_of(plan.spec) if arms is None else arms
    source = random.Random(4)
    rounds = [
        _round(task, arm, first, last, chances.get(arm.key, 0.7), source)
        for task in plan.tasks
        for arm in taken
        if arm.takes(task)
        for first, last in bounds(len(task.questions), plan.spec.concurrency)
    ]
    speeds = {arm.key: tuple(SPEED.get(arm.key, 600.0) * source.uniform(0.93, 1.07) for _ in range(5)) for arm in taken}
    return Measured(tuple(rounds), speeds)


def found(plan: Plan, measured: Measured | None = None, *, complete: bool = True) -> Result:
    """The result of that."""
    about = {"spec": plan.spec.model_dump(mode="json"), "digests": {}, "versions": {}}
    return result_of(plan, measured_of(plan) if measured is None else measured, about, complete=complete)


def _task(folder: Path, name: str, seed: int) -> dict[str, Any]:
    write_questions(folder / f"{name}.jsonl", asked(name, "test", 6))
    write_questions(folder / f"{name}-shots.jsonl", asked(name, "shot", 3))
    adapters = {
        kind: small_adapter(folder / f"{name}-{kind}", 2 * seed + (kind == "large")) for kind in ("small", "large")
    }
    return {
        "name": name,
        "test": f"{name}.jsonl",
        "shots": f"{name}-shots.jsonl",
        **{f"{kind}_adapter": path.name for kind, path in adapters.items()},
    }


def _questions(task: str, kind: str, count: int) -> tuple[Question, ...]:
    return tuple(Question(*pair) for pair in asked(task, kind, count))


def _round(task: Task, arm: Arm, first: int, last: int, chance: float, source: random.Random) -> Round:
    answers = tuple(_answers(task.questions[first:last], chance, source))
    return Round(task.name, arm.key, first, Asked(answers, seconds=source.uniform(0.9, 1.1)))


def _answers(questions: Sequence[Question], chance: float, source: random.Random) -> Iterator[Answer]:
    for question in questions:
        text = question.expected if source.random() < chance else "no idea"
        yield Answer(text, prompt_tokens=20, output_tokens=len(text), cut=False)
