"""The files of an adapter, in and out."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.adapters.convert.initial import initial_folder
from loraloom.adapters.manifest import CONFIG_FILE, WEIGHTS_FILE, open_regular, tensor_name


def private_copy(folder: Path, target: Path) -> Path:
    """Copy what peft may read of the adapter in `folder` to the new folder `target`, and return that.

    peft follows links, and reads a pickle where it finds no safetensors; in the copy there is neither.

    Raises:
        InvalidAdapter: a file is missing, a link, or not a regular file.
    """
    target.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with open_regular(folder / name) as source, (target / name).open("wb") as file:
            shutil.copyfileobj(source, file)
    initial = initial_folder(folder)
    if initial is not None:
        private_copy(initial, target / "initial")
    return target


def write_lora(updates: Mapping[str, Factors], folder: Path, base: str | None) -> None:
    """Write a plain LoRA as peft does, with alpha equal to the rank of each module, so that B A is the whole update.

    Args:
        updates: by module path; float32.
        folder: an existing one.
        base: the base model's name.
    """
    from safetensors.torch import save_file

    ranks = {path: factors.rank for path, factors in updates.items()}
    rank = max(ranks.values())
    pattern = {re.escape(path): own for path, own in ranks.items() if own != rank}
    config = {
        "alpha_pattern": pattern,
        "base_model_name_or_path": base,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": rank,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": pattern,
        "target_modules": sorted(updates),
        "task_type": "CAUSAL_LM",
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tensors = {tensor_name(path, "A"): factors.a.contiguous() for path, factors in updates.items()}
    tensors |= {tensor_name(path, "B"): factors.b.contiguous() for path, factors in updates.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors makes files that only their owner can read
