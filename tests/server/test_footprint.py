"""The sizes of a base model, from small directories."""

import json
from pathlib import Path
from typing import Any

import pytest

from loraloom.server.footprint import Footprint, read_footprint

CONFIG = {
    "dtype": "bfloat16",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
}
SMALL = Footprint(weights=7, sixteen_bits=True, token=2 * 30 * 3 * 64, rank=4_884_480 // 16, context=8192)


def write_model(folder: Path, config: Any = CONFIG, **files: int) -> Path:
    """A model directory with weights of a given number of bytes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name, size in (files or {"model.safetensors": 7}).items():
        (folder / name).write_bytes(bytes(size))
    return folder


def test_a_llama(tmp_path: Path) -> None:
    assert read_footprint(write_model(tmp_path / "model")) == SMALL


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        ({"model-1-of-2.safetensors": 3, "model-2-of-2.safetensors": 4, "consolidated.safetensors": 7}, 7),
        ({"weights.safetensors": 5, "pytorch_model.bin": 9}, 5),
        ({"pytorch_model.bin": 9}, 9),
        ({"model.gguf": 9}, 0),
    ],
)
def test_weights_count_once(tmp_path: Path, files: dict[str, int], weights: int) -> None:
    size = read_footprint(write_model(tmp_path / "model", **files))
    assert size is not None
    assert size.weights == weights


@pytest.mark.parametrize(
    ("changes", "sixteen"),
    [
        ({"dtype": "float32"}, False),
        ({"dtype": None, "torch_dtype": "float16"}, True),
        ({"dtype": None}, False),
        ({"quantization_config": {"bits": 4}}, False),
    ],
)
def test_only_plain_weights_of_sixteen_bits_would_be_widened(
    tmp_path: Path, changes: dict[str, Any], sixteen: bool
) -> None:
    size = read_footprint(write_model(tmp_path / "model", {**CONFIG, **changes}))
    assert size is not None
    assert size.sixteen_bits == sixteen


def test_what_a_configuration_leaves_out(tmp_path: Path) -> None:
    left_out = {name: size for name, size in CONFIG.items() if name not in ("num_key_value_heads", "intermediate_size")}
    size = read_footprint(write_model(tmp_path / "model", left_out))
    assert size is not None
    assert size.token == 2 * 30 * 9 * 64
    assert size.rank == 30 * (8 * 576 + 3 * 5 * 576)


def test_a_head_of_its_own_size(tmp_path: Path) -> None:
    size = read_footprint(write_model(tmp_path / "model", {**CONFIG, "head_dim": 128}))
    assert size is not None
    assert size.token == 2 * SMALL.token


def test_the_text_model_inside_another(tmp_path: Path) -> None:
    nested = {"dtype": "bfloat16", "text_config": {name: size for name, size in CONFIG.items() if name != "dtype"}}
    assert read_footprint(write_model(tmp_path / "model", nested)) == SMALL


@pytest.mark.parametrize("config", [{}, [], {"n_layer": 12, "n_embd": 768}, {**CONFIG, "hidden_size": "wide"}])
def test_sizes_that_are_not_told(tmp_path: Path, config: Any) -> None:
    assert read_footprint(write_model(tmp_path / "model", config)) is None
    assert read_footprint(tmp_path / "missing") is None
