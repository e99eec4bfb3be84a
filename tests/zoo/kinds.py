"""`python -m tests.zoo.kinds KIND...|all`: what is lost when adapters of other kinds become plain LoRA.

Trains an adapter of each kind on the demo's `date` task, unless it was trained before, converts it, and compares base,
original and converted adapter on held-out prompts. Everything lies under build/kinds; `results.jsonl` there is what
`--table` prints.
"""

import argparse
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.convert.convert import Options, convert, extract
from loraloom.adapters.convert.files import private_copy, write_lora
from loraloom.adapters.convert.kinds import kind_of
from loraloom.adapters.convert.original import put_on
from loraloom.adapters.convert.probe import Probe, compare, predictions, read_probe
from loraloom.adapters.manifest import WEIGHTS_FILE, read_manifest, tensor_name
from loraloom.adapters.normal import normalise
from loraloom.demo.model import prepare

from . import train
from .chat import answer_ids, answers, prompt_ids
from .kinds_recipes import FULL, RECIPES, KindRecipe
from .kinds_table import Row, read_rows, table
from .kinds_train import train_kind
from .task import Example
from .tasks import TASKS

OUT = Path(__file__).parents[2] / "build" / "kinds"
PROMPTS = 20
TASK = TASKS["date"]


@dataclass(frozen=True)
class _Answers:
    """What one model makes of the held-out prompts: how many it answers right, and its logits on them."""

    right: int
    logits: torch.Tensor


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    for kind in RECIPES if "all" in arguments.kinds else arguments.kinds:
        folder = OUT / kind
        if not folder.exists():
            _train(RECIPES[kind], folder)
        for row in _measure(RECIPES[kind], folder, arguments.rank):
            with (OUT / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
            print(table([row]), flush=True)
    print(table(read_rows(OUT / "results.jsonl")))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.kinds", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=(*RECIPES, "all"), metavar="KIND", help="a kind, or all")
    parser.add_argument("--rank", type=int, nargs="*", default=[], help="ranks to truncate to, besides the default")
    return parser.parse_args()


def _train(recipe: KindRecipe, folder: Path) -> None:
    base, tokenizer = train.load_base(prepare())
    examples, _ = TASK.split(recipe.recipe().examples)
    stage = folder.with_suffix(".partial")
    shutil.rmtree(stage, ignore_errors=True)
    train_kind(base, tokenizer, examples, recipe, stage, lambda step, loss: print(recipe.kind, step, f"{loss:.3f}"))
    stage.rename(folder)


def _measure(recipe: KindRecipe, folder: Path, ranks: list[int]) -> list[Row]:
    base, tokenizer = train.load_base(prepare())
    held_out = TASK.split(0)[1][:PROMPTS]
    probe = _task_probe(tokenizer, held_out)
    plain = _ask(base, tokenizer, held_out, probe)
    original = _ask(_original(recipe, folder), tokenizer, held_out, probe)
    rows = []
    for rank in (None, *ranks):
        started = time.monotonic()
        made = OUT / f"{recipe.kind}-as-lora-{rank or 'default'}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        facts = _convert(recipe, folder, made, rank)
        seconds = time.monotonic() - started
        adapted = PeftModel.from_pretrained(train.load_base(prepare())[0], str(made)).eval()
        converted = _ask(adapted, tokenizer, held_out, probe)
        task = compare(original.logits, converted.logits)
        rows.append(
            Row(
                label=recipe.label,
                rank=facts["rank"],
                chosen=rank is not None,
                exact=facts["exact"],
                relative_error=facts["relative_error"],
                kl=facts["kl"],
                base_kl=facts["base_kl"],
                task_kl=task.kl,
                task_base_kl=compare(original.logits, plain.logits).kl,
                task_top1=task.top1,
                prompts=PROMPTS,
                right_base=plain.right,
                right_original=original.right,
                right_converted=converted.right,
                seconds=round(seconds),
            )
        )
    return rows


def _original(recipe: KindRecipe, folder: Path) -> Any:
    base, _ = train.load_base(prepare())
    if recipe.kind == FULL:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with TemporaryDirectory() as scratch:
        copied = private_copy(folder, Path(scratch, "adapter"))
        return put_on(base, copied, changes_base=kind_of(folder).changes_base).model


def _convert(recipe: KindRecipe, folder: Path, made: Path, rank: int | None) -> dict[str, Any]:
    """What a conversion says of itself; plain LoRA is brought to its normal form."""
    options = Options(rank=rank, max_kl=float("inf"))
    if recipe.kind == FULL:
        return extract(folder, prepare(), made, options).as_json()
    if kind_of(folder).treatment == "plain":
        rank = _normalise(folder, made)
        return {"rank": rank, "exact": True, "relative_error": 0.0, "kl": None, "base_kl": None}
    return convert(folder, made, prepare(), options).as_json()


def _normalise(folder: Path, made: Path) -> int:
    """Write what the store makes of plain LoRA so that peft can read it; returns its largest rank."""
    with TemporaryDirectory() as scratch:
        normalise(folder, Path(scratch))
        tensors = load_file(Path(scratch, WEIGHTS_FILE))
        manifest = read_manifest(Path(scratch))
    names = {path: (tensor_name(path, "A"), tensor_name(path, "B")) for path in manifest.modules}
    write_lora({path: Factors(tensors[a].float(), tensors[b].float()) for path, (a, b) in names.items()}, made, None)
    return manifest.rank


def _task_probe(tokenizer: PreTrainedTokenizerBase, examples: list[Example]) -> Probe:
    """Held-out prompts with their right answers, one after the other, as long as a probe may be."""
    ids = [id_ for e in examples for id_ in prompt_ids(tokenizer, (), e.prompt) + answer_ids(tokenizer, e.expected)]
    file = OUT / "task.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(tokenizer.decode(ids), encoding="utf-8")
    return read_probe(file, tokenizer)


def _ask(model: Any, tokenizer: PreTrainedTokenizerBase, examples: list[Example], probe: Probe) -> _Answers:
    limit = 8 + max(len(answer_ids(tokenizer, example.expected)) for example in examples)
    found = answers(model, tokenizer, [example.prompt for example in examples], limit=limit)
    right = sum(example.accepts(answer) for example, answer in zip(examples, found, strict=True))
    return _Answers(right, predictions(model, probe))


if __name__ == "__main__":
    main()
