"""vLLM's own models, small, and without an engine that holds a KV cache for them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from vllm.config import ModelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    ensure_model_parallel_initialized,
    init_distributed_environment,
)
from vllm.model_executor.layers.attention import Attention

from loraloom.server.engine import register_model
from loraloom.server.proxy.pair import ARCHITECTURE, Pair

LLAMA = ("LlamaForCausalLM",)


@dataclass(frozen=True)
class Models:
    """Directories of models."""

    large: Path
    small: Path
    expert: Path


def save_small(folder: Path, seed: int) -> Path:
    """A seeded Llama of one layer."""
    config = LlamaConfig(
        vocab_size=80,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def engine_config(models: Models, *, own_expert: bool = False, alpha: float = 1.0) -> VllmConfig:
    """The configuration of an engine for a pair."""
    pair = Pair(LLAMA, str(models.small), str(models.expert) if own_expert else None, alpha)
    register_model(ARCHITECTURE, "loraloom.server.proxy.composite.model:ProxyForCausalLM")
    overrides = json.loads(pair.overrides())
    model = ModelConfig(str(models.large), hf_overrides=overrides, dtype="float32", enforce_eager=True)
    return VllmConfig(model_config=model)


@contextmanager
def one_rank(store: Path) -> Iterator[None]:
    """The distributed environment of an engine of one process."""
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        yield
    destroy_model_parallel()
    destroy_distributed_environment()


class Causal(nn.Module):
    """Attention over the tokens of one step, each over those before it: what a KV cache makes of one prompt."""

    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self._size = layer.head_size

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heads = (each.unflatten(1, (-1, self._size)).transpose(0, 1) for each in (query, key, value))
        attended = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
        return attended.transpose(0, 1).flatten(1)


def without_cache(model: nn.Module) -> None:
    """Let a model's attention layers look at the tokens of their step alone."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Attention)]
    for name, layer in layers:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Causal(layer))
