"""Adapters of random numbers, of any rank, on linear layers of a base model: what they cost is what counts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from loraloom.adapters.base import BaseFingerprint

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Kind:
    """What an adapter of random numbers consists of.

    Attributes:
        modules: the last parts of the names of the layers that it changes.
        dtype: of the numbers in its file, as numpy calls it.
        size: standard deviation of the numbers in B; at 0.01 the base's answers change, and do not fall apart.
    """

    modules: tuple[str, ...] = LINEAR
    dtype: str = "float32"
    size: float = 0.01


EVERY_LAYER = Kind()


def name_of(rank: int, number: int) -> str:
    """The name of an adapter of random numbers."""
    return f"r{rank}-{number}"


def random_adapter(folder: Path, base: BaseFingerprint, rank: int, seed: int, kind: Kind = EVERY_LAYER) -> Path:
    """Write an adapter in peft's format, if the folder is not there yet; the same arguments give the same numbers."""
    if folder.exists():
        return folder
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": kind.modules,
    }
    tensors = _tensors(base, rank, seed, kind)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _tensors(base: BaseFingerprint, rank: int, seed: int, kind: Kind) -> Mapping[str, np.ndarray]:
    random = np.random.default_rng(seed)
    tensors = {}
    for module, shape in base.modules.items():
        if shape is None or module.rsplit(".", 1)[-1] not in kind.modules:
            continue
        outputs, inputs = shape
        a = random.standard_normal((rank, inputs), dtype=np.float32) / np.float32(inputs**0.5)
        b = random.standard_normal((outputs, rank), dtype=np.float32) * np.float32(kind.size)
        named = {"lora_A": a, "lora_B": b}
        tensors |= {f"base_model.model.{module}.{name}.weight": each.astype(kind.dtype) for name, each in named.items()}
    return tensors
