"""`python -m tests.zoo train|evaluate NAME...|all`: make the demo's adapters again, or only measure them."""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import card, train
from .base import BASES, Base
from .chat import answer_ids, answers
from .task import Example, Task
from .tasks import TASKS

STAGE = Path(__file__).parents[2] / "build" / "zoo"
SHOTS = 5
SHOWN = 10


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(2)
    base = BASES[arguments.base]
    bench = Bench(base, *train.load_base(base.prepare()), arguments.out or base.adapters)
    for name in arguments.names:
        if arguments.command == "train":
            _train(TASKS[name], bench)
        else:
            accuracy, _ = _measure(TASKS[name], bench, bench.out / name)
            _report(name, accuracy)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("command", choices=("train", "evaluate"))
    parser.add_argument("names", nargs="+", choices=(*TASKS, "all"), metavar="NAME", help="a task, or all")
    parser.add_argument("--base", choices=tuple(BASES), default="large", help="the model (default: large)")
    parser.add_argument("--out", type=Path, help="the folder of adapters (default: the demo's)")
    arguments = parser.parse_args()
    recipes = BASES[arguments.base].recipes
    if "all" in arguments.names:
        arguments.names = list(recipes)
    if unknown := set(arguments.names) - set(recipes):
        known = ", ".join(recipes)
        parser.error(f"no recipe on the {arguments.base} model for {', '.join(sorted(unknown))}; there are {known}")
    return arguments


@dataclass(frozen=True)
class Bench:
    """A base that is loaded, and where its adapters go."""

    base: Base
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    out: Path


def _train(task: Task, bench: Bench) -> None:
    """Train, measure and describe one adapter; put it in place if it gains enough."""
    base, started = bench.base, time.monotonic()
    recipe, stage = base.recipes[task.name], STAGE / base.adapters.parent.name / task.name
    examples, _ = task.split(recipe.examples)
    model = train.train(bench.model, bench.tokenizer, examples, recipe, _progress(task.name, recipe.steps))
    seconds = time.monotonic() - started
    shutil.rmtree(stage, ignore_errors=True)
    train.save(model, stage, base.name)
    model.unload()
    accuracy, right = _measure(task, bench, stage)
    _report(task.name, accuracy)
    if accuracy.gain < base.gain:
        print(f"{task.name}: gains {accuracy.gain:g} points, {base.gain:g} are needed; left in {stage}", flush=True)
        return
    card.write(card.Card.of(task, recipe, len(examples), seconds, accuracy), base, right[:SHOWN], stage)
    shutil.rmtree(bench.out / task.name, ignore_errors=True)
    shutil.copytree(stage, bench.out / task.name)


def _measure(task: Task, bench: Bench, folder: Path) -> tuple[card.Accuracy, list[Example]]:
    """The three accuracies on the held-out prompts, and the examples that the adapter answers right."""
    base, tokenizer = bench.model, bench.tokenizer
    training, held_out = task.split(bench.base.recipes[task.name].examples)

    def right(model: PreTrainedModel | PeftModel, shots: list[Example]) -> list[Example]:
        # An answer longer than every right one is wrong already.
        limit = 8 + max(len(answer_ids(tokenizer, example.expected)) for example in held_out)
        found = answers(model, tokenizer, [example.prompt for example in held_out], shots, limit)
        return [example for example, answer in zip(held_out, found, strict=True) if example.accepts(answer)]

    plain, shown = right(base, []), right(base, training[:SHOTS])
    adapted = PeftModel.from_pretrained(base, str(folder)).eval()
    learned = right(adapted, [])
    adapted.unload()
    shares = (100 * len(each) / len(held_out) for each in (plain, shown, learned))
    return card.Accuracy(len(held_out), *shares), learned


def _progress(name: str, steps: int) -> Callable[[int, float], None]:
    def show(step: int, loss: float) -> None:
        if step % 10 == 0 or step == steps:
            print(f"{name}: step {step} of {steps}, loss {loss:.3f}", flush=True)

    return show


def _report(name: str, accuracy: card.Accuracy) -> None:
    print(
        f"{name}: base {accuracy.base:g}%, with five examples {accuracy.base_with_five_examples:g}%, "
        f"adapter {accuracy.adapter:g}%",
        flush=True,
    )


if __name__ == "__main__":
    main()
