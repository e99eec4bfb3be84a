"""`python -m tests.zoo train|evaluate NAME...|all`: make the demo's adapters again, or only measure them."""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loraloom.demo.model import prepare

from . import card, train
from .chat import answer_ids, answers
from .recipe import RECIPES
from .task import Example, Task
from .tasks import TASKS

ADAPTERS = Path(__file__).parents[2] / "deploy" / "demo" / "adapters"
STAGE = Path(__file__).parents[2] / "build" / "zoo"
SHOTS = 5
SHOWN = 10


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(2)
    base, tokenizer = train.load_base(prepare())
    for name in TASKS if "all" in arguments.names else arguments.names:
        if arguments.command == "train":
            _train(TASKS[name], base, tokenizer, arguments.out)
        else:
            accuracy, _ = _measure(TASKS[name], base, tokenizer, arguments.out / name)
            _report(name, accuracy)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("command", choices=("train", "evaluate"))
    parser.add_argument("names", nargs="+", choices=(*TASKS, "all"), metavar="NAME", help="a task, or all")
    parser.add_argument("--out", type=Path, default=ADAPTERS, help="the folder of adapters (default: the demo's)")
    return parser.parse_args()


def _train(task: Task, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Train, measure and describe one adapter; put it in place if it gains enough."""
    recipe, stage, started = RECIPES[task.name], STAGE / task.name, time.monotonic()
    examples, _ = task.split(recipe.examples)
    model = train.train(base, tokenizer, examples, recipe, _progress(task.name, recipe.steps))
    seconds = time.monotonic() - started
    shutil.rmtree(stage, ignore_errors=True)
    train.save(model, stage)
    model.unload()
    accuracy, right = _measure(task, base, tokenizer, stage)
    _report(task.name, accuracy)
    if accuracy.gain < card.GAIN:
        print(f"{task.name}: gains {accuracy.gain:g} points, {card.GAIN} are needed; left in {stage}", flush=True)
        return
    card.write(card.Card.of(task, recipe, len(examples), seconds, accuracy), right[:SHOWN], stage)
    shutil.rmtree(out / task.name, ignore_errors=True)
    shutil.copytree(stage, out / task.name)


def _measure(
    task: Task, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> tuple[card.Accuracy, list[Example]]:
    """The three accuracies on the held-out prompts, and the examples that the adapter answers right."""
    training, held_out = task.split(RECIPES[task.name].examples)

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
