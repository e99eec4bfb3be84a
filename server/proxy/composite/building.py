"""Building the models inside the composite one, each under its own name and with its own configuration."""

import copy
from typing import Any

from torch import nn
from vllm.compilation.backends import set_model_tag
from vllm.config import VllmConfig
from vllm.lora.layers import VocabParallelEmbeddingWithLoRA
from vllm.model_executor.models.utils import init_vllm_registered_model
from vllm.transformers_utils.config import get_config


def build_large(config: VllmConfig, architectures: tuple[str, ...]) -> nn.Module:
    """The large model, whose configuration the engine was started with."""
    with set_model_tag("proxy_large"):
        return init_vllm_registered_model(config, architectures=list(architectures))


def build_small(config: VllmConfig, model: str, name: str) -> nn.Module:
    """A small model.

    Args:
        config: of the engine.
        model: its directory or Hugging Face id.
        name: begins the names of its attention layers.
    """
    with set_model_tag(f"proxy_{name}"):
        return init_vllm_registered_model(small_config(config, model), prefix=name)


def unwrap_embedding(model: nn.Module) -> None:
    """Take LoRA off a small model's embedding, which no stored adapter changes.

    vLLM looks adapters' embeddings up with the size of the large model's vocabulary.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, VocabParallelEmbeddingWithLoRA):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.base_layer)


def small_config(config: VllmConfig, model: str) -> VllmConfig:
    """The engine's configuration for a small model: unquantized, and compiled for steps with twice the rows.

    It shares with the engine's what has to be known in one place, the attention layers above all.
    """
    given: Any = get_config(model, trust_remote_code=False)
    own = copy.copy(config.with_hf_config(given))
    own.quant_config = None
    own.compilation_config = copy.copy(config.compilation_config)
    endpoints = own.compilation_config.compile_ranges_endpoints
    own.compilation_config.compile_ranges_endpoints = endpoints and [2 * each for each in endpoints]
    return own
