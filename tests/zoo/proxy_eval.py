"""`python -m tests.zoo.proxy_eval`: write the questions of the demo's comparison of proxy-tuning anew.

Of each of its tasks: the held-out prompts, which no adapter was trained on, and the first training examples whose
answers differ, to be shown in a prompt: where a task has few answers, each of them is there.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from loraloom.server.proxy.evaluation.spec import read_spec

from .task import Example
from .tasks import TASKS

TRAINING = 100
FOLDER = Path(__file__).parents[2] / "deploy/demo/proxy"


def write(folder: Path = FOLDER) -> None:
    """Write all files but the description, which says what they are called."""
    spec = read_spec(FOLDER / "spec.yaml")
    for task in spec.tasks:
        training, held_out = TASKS[task.name].split(TRAINING)
        shots = list({example.expected: example for example in reversed(training)}.values())[::-1][: spec.shots]
        _write(folder / task.test.name, held_out)
        if task.shots is not None:
            _write(folder / task.shots.name, shots)


def _write(path: Path, examples: Iterable[Example]) -> None:
    values = ({"prompt": example.prompt, "expected": example.expected} for example in examples)
    path.write_text("".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values), encoding="utf-8")


if __name__ == "__main__":
    write()
