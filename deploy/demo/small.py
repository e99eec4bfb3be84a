"""The demo's small model: some layers of the demo model, healed by low-rank changes that come with the package.

It speaks with the demo model's tokenizer, at a third of the work: the small side of proxy-tuning (Liu et al. 2024,
arXiv:2401.08565). `python -m tests.zoo.healing` trains the changes, to write what the demo model writes. Their text
includes training prompts of the demo's tasks, with the demo model's own answers and not the right ones: of these tasks
it knows what the demo model knows, and has seen how they are put.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import model
from .folders import default_folder, digest, is_whole, make_once, readable

if TYPE_CHECKING:
    from torch import Tensor

NAME = "SmolLM2-10L-Instruct"
LAYERS = (0, 1, 4, 8, 12, 16, 20, 24, 28, 29)
"""The demo model's layers that the small one keeps."""
HEALING = Path(__file__).with_name("small-model") / "healing.safetensors"

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def prepare_small(target: Path | None = None, progress: Callable[[str], None] = print) -> Path:
    """Make the demo's small model, and before it the demo model, unless they are there already.

    It appears whole or not at all, as `loraloom.demo.model.prepare` has it, with the same bytes each time; one that
    was made from other changes is made anew.

    Args:
        target: the model's folder; by default `default_folder(NAME)`.
        progress: receives a line of text before each step that takes seconds.

    Returns:
        A Hugging Face model folder: bfloat16 safetensors, and the demo model's tokenizer and chat template.

    Raises:
        DemoModelError: the package that carries the demo model's weights is not installed.
    """
    target = target or default_folder(NAME)
    made_from = {"package": f"{model.PACKAGE}=={model.PACKAGE_VERSION}", "healing": digest(HEALING)}
    if not is_whole(target, made_from):
        large = model.prepare(progress=progress)
        progress(f"Making {NAME} from {len(LAYERS)} layers of {model.NAME}")
        make_once(target, made_from, lambda folder: write_small(large, LAYERS, HEALING, folder), progress)
    return target


def write_small(large: Path, layers: tuple[int, ...], healing: Path, folder: Path) -> None:
    """Write the folder of a model that has some of another's layers, changed as a file of low-rank factors says."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    weights = healed(selected(load_file(large / "model.safetensors"), layers), load_file(healing))
    save_file(dict(sorted(weights.items())), folder / "model.safetensors", metadata={"format": "pt"})
    readable(folder)
    config = json.loads((large / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({**config, "num_hidden_layers": len(layers)}, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for name in _TOKENIZER:
        if (large / name).exists():
            shutil.copyfile(large / name, folder / name)


def selected(weights: "Mapping[str, Tensor]", layers: tuple[int, ...]) -> "dict[str, Tensor]":
    """The weights of a model that has some layers only, counted anew from zero; all other weights are kept."""
    found = {}
    for name, weight in weights.items():
        layer = _LAYER.fullmatch(name)
        if layer is None:
            found[name] = weight
        elif int(layer[1]) in layers:
            found[f"model.layers.{layers.index(int(layer[1]))}.{layer[2]}"] = weight
    return found


def healed(weights: "Mapping[str, Tensor]", factors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Add `up @ down` to every weight that has these factors, in the weight's own type.

    The products are of float64, where sums of bfloat16 factors hardly round: every machine finds the same ones.

    Args:
        weights: (outputs, inputs) each.
        factors: `NAME.up`, (outputs, rank), and `NAME.down`, (rank, inputs), of some weights.
    """
    found = dict(weights)
    for name in sorted(key.removesuffix(".up") for key in factors if key.endswith(".up")):
        change = factors[f"{name}.up"].double() @ factors[f"{name}.down"].double()
        found[name] = (weights[name].float() + change.float()).to(weights[name].dtype)
    return found
