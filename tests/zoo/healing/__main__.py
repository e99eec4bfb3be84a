"""`python -m tests.zoo.healing`: heal the demo's small model again, and tell its perplexity before and after."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loraloom.demo import small
from loraloom.demo.model import prepare

from .. import train
from .distil import Healing, distil, factors
from .lessons import lessons
from .perplexity import perplexity
from .prompts import open_prompts, task_prompts
from .pruning import pruned
from .text import written

OPEN, HELD_OUT, OF_TASKS = 384, 64, 48
"""Open conversations to learn from, others to measure on, and conversations of each demo task."""
LONGEST_OPEN, LONGEST_OF_TASKS, LONGEST = 112, 40, 256
"""Tokens of an answer to an open question, of one to a task's prompt, and of a whole text."""

Texts = Sequence[Sequence[int]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.healing", description=__doc__)
    parser.add_argument("--out", type=Path, default=small.HEALING, help="the file of changes (default: the demo's)")
    out = parser.parse_args().out
    torch.set_num_threads(2)
    large, tokenizer = train.load_base(prepare())
    writer = large.bfloat16()
    held_out, texts = _texts(writer, tokenizer)
    learned = lessons(writer, texts, small.LAYERS, 16, _count("lessons"))
    large = writer.float()  # as it was: its weights are stored in bfloat16
    model = pruned(large, small.LAYERS)
    print(f"perplexity of the large model {perplexity(large, held_out):.2f}", flush=True)
    print(f"perplexity of its {len(small.LAYERS)} layers {perplexity(model, held_out):.3g}", flush=True)
    healed = distil(model, learned, Healing(), _show)
    print(f"perplexity of the healed model {perplexity(healed, held_out):.2f}", flush=True)
    save_file(factors(healed), out)
    out.chmod(0o644)


def _texts(writer: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[Texts, Texts]:
    """What the large model writes: texts to measure on, and texts to learn from."""
    questions = open_prompts(HELD_OUT + OPEN, seed=0)
    held_out = written(writer, tokenizer, questions[:HELD_OUT], LONGEST_OPEN, _count("held-out texts"))
    texts = written(writer, tokenizer, questions[HELD_OUT:], LONGEST_OPEN, _count("open texts"), seed=1)
    texts += written(writer, tokenizer, task_prompts(OF_TASKS), LONGEST_OF_TASKS, _count("task texts"), seed=2)
    return held_out, [text[:LONGEST] for text in texts]


def _count(what: str) -> Callable[[int], None]:
    started = time.monotonic()
    return lambda done: print(f"{done} {what} after {time.monotonic() - started:.0f} s", flush=True)


def _show(step: int, states: float, tokens: float) -> None:
    if step % 10 == 0:
        print(f"step {step}: states {states:.4f}, tokens {tokens:.4f}", flush=True)


if __name__ == "__main__":
    main()
