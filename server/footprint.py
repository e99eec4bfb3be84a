"""What a base model takes of memory, as far as its directory tells."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHTS = ("model*.safetensors", "*.safetensors", "*.bin")
"""Where a model's weights are; the first pattern that finds any counts."""


@dataclass(frozen=True)
class Footprint:
    """Sizes of a base model.

    Attributes:
        weights: bytes of its weights on disk.
        sixteen_bits: whether these are of 16 bits each, so that computing in float32 doubles them.
        token: numbers in the KV cache for one token, at most.
        rank: numbers in an adapter of rank 1 on every linear module.
        context: the longest sequence, in tokens.
    """

    weights: int
    sixteen_bits: bool
    token: int
    rank: int
    context: int


def read_footprint(folder: Path) -> Footprint | None:
    """Sizes by a model's directory; None where it is none, or of a kind whose configuration is written otherwise."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        text = text_part(config)
        return Footprint(
            weights=_weights(folder),
            sixteen_bits=_sixteen_bits({**config, **text}),
            token=2 * text["num_hidden_layers"] * _kv_width(text),
            rank=_rank(text),
            context=int(text["max_position_embeddings"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that is about the language model: all of it, where there is nothing else."""
    text: Mapping[str, Any] = config.get("text_config", config)
    return text


def head_dim(text: Mapping[str, Any]) -> int:
    """Dimensions of one attention head."""
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def kv_heads(text: Mapping[str, Any]) -> int:
    """Heads that have keys and values of their own."""
    return int(text.get("num_key_value_heads") or text["num_attention_heads"])


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's directory that hold its weights."""
    found = (sorted(folder.glob(pattern)) for pattern in WEIGHTS)
    return next(filter(None, found), [])


def _weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))


def _sixteen_bits(config: Mapping[str, Any]) -> bool:
    dtype = config.get("dtype") or config.get("torch_dtype")
    return dtype in ("bfloat16", "float16") and "quantization_config" not in config


def _kv_width(text: Mapping[str, Any]) -> int:
    return kv_heads(text) * head_dim(text)


def _rank(text: Mapping[str, Any]) -> int:
    """In and out of the attention's four modules and of the feed-forward's three, over all layers."""
    hidden, inner = text["hidden_size"], text.get("intermediate_size") or 4 * text["hidden_size"]
    query, key = text["num_attention_heads"] * head_dim(text), _kv_width(text)
    return int(text["num_hidden_layers"] * (2 * (hidden + query) + 2 * (hidden + key) + 3 * (hidden + inner)))
