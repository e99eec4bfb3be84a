"""Adapters of a few hundred bytes, for tests that do not care what an adapter does."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def small_adapter(folder: Path, seed: int = 0, rank: int = 2, scale: float = 1.0, width: int = 8) -> Path:
    """A plain LoRA of one width x width module, in peft's format; the same arguments give the same bytes."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    a = random.standard_normal((rank, width), dtype=np.float32)
    b = random.standard_normal((width, rank), dtype=np.float32) * np.float32(scale)
    save_file({f"{MODULE}.lora_A.weight": a, f"{MODULE}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    config = {
        "base_model_name_or_path": "tiny",
        "lora_alpha": 2 * rank,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(f"Made of seed {seed}.\n")
    return folder
