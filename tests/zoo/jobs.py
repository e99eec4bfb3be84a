"""`python -m tests.zoo.jobs`: write the examples of the demo's jobs anew.

two-tasks   prompts of two demo tasks in turns, whose best mixture is known
people      a task that no adapter was trained for: it takes what two of them know
chat        questions with the base model's own answers: nothing can help there
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from .tasks import TASKS

FOLDER = Path(__file__).parents[2] / "deploy/demo/jobs"
SEEN, HELD = 10, 20
SEED = 5
LONGEST = 64
"""Tokens of an answer."""

Pair = tuple[str, str]
"""A prompt, and the right answer."""

QUESTIONS = (
    "What is the capital of France?",
    "What is the capital of Italy?",
    "What is the capital of Japan?",
    "What is the capital of Spain?",
    "What colour is the sky on a clear day?",
    "What colour is grass?",
    "Name a fruit that is yellow.",
    "Name a metal that rusts.",
    "Which planet do we live on?",
    "Which planet is called the red planet?",
    "How many days does a week have?",
    "How many legs does a spider have?",
    "What do bees make?",
    "What do cows drink?",
    "Who wrote Romeo and Juliet?",
    "Who painted the Mona Lisa?",
    "What is the opposite of hot?",
    "What is the opposite of big?",
    "What is frozen water called?",
    "What gas do plants take in?",
    "What is the largest ocean?",
    "What is the longest river in Africa?",
    "In which season does it snow?",
    "At what temperature does water boil?",
    "What language is spoken in Brazil?",
    "What is the currency of Japan?",
    "How many minutes does an hour have?",
    "How many wheels does a bicycle have?",
    "What is the first month of the year?",
    "What is the last letter of the alphabet?",
)


def two_tasks() -> Iterator[Pair]:
    """Prompts of `name` and `units` in turns, none of which the adapters were trained on."""
    for pair in zip(_drawn("name"), _drawn("units"), strict=True):
        yield from pair


def people() -> Iterator[Pair]:
    """A person's name and date of birth, to be written as a reference with an ISO date."""
    for (reference, cited), (date, iso) in zip(_drawn("name"), _drawn("date"), strict=True):
        name, _, _ = reference.removeprefix("Cite as a reference: ").rpartition(", ")
        last, _, _ = cited.rpartition(" (")
        yield (
            f"File this person: {name}, born {date.removeprefix('Write this date in ISO format: ')}",
            f"{last} ({iso})",
        )


def own_answers() -> Iterator[Pair]:
    """What the base model says by itself, where it comes to an end."""
    from loraloom.compose.encoder import encoder_of
    from loraloom.compose.examples import Example, Turn
    from loraloom.compose.scorers.torch_scorer import TorchScorer, load_model
    from loraloom.demo.catalog import demo_adapters
    from loraloom.demo.model import prepare

    base = str(prepare())
    encoder, pool = encoder_of(base, "chat"), [_normal(each.folder) for each in demo_adapters()[:1]]
    scorer = TorchScorer(load_model(base, "cpu"), pool, "exact")
    for question in QUESTIONS:
        (answer,) = scorer.answers((0.0,), [encoder.prompt(Example((Turn("user", question),), "-"))], LONGEST)
        if len(answer) < LONGEST:
            yield question, encoder.text(answer)


def write(name: str, pairs: Iterable[Pair], folder: Path = FOLDER) -> None:
    """Write the examples to learn from and those to judge by."""
    lines = [json.dumps({"prompt": prompt, "completion": answer}, ensure_ascii=False) for prompt, answer in pairs]
    (folder / f"{name}.jsonl").write_text("\n".join(lines[:SEEN]) + "\n", encoding="utf-8")
    (folder / f"{name}-held-out.jsonl").write_text("\n".join(lines[SEEN : SEEN + HELD]) + "\n", encoding="utf-8")


def _drawn(name: str) -> list[Pair]:
    task = TASKS[name]
    trained, held = task.split(400)
    known = {example.prompt for example in (*trained, *held)}
    source = Random(f"{name} {SEED}")
    fresh = dict(pair for pair in itertools.islice(iter(lambda: task.draw(source), None), 400) if pair[0] not in known)
    return list(fresh.items())[: SEEN + HELD]


def _normal(given: Path) -> Path:
    from tempfile import mkdtemp

    from loraloom.adapters.normal import normalise

    out = Path(mkdtemp())
    normalise(given, out)
    return out


if __name__ == "__main__":
    write("two-tasks", two_tasks())
    write("people", people())
    write("chat", own_answers())
