"""Building the models inside the composite one, each under its own name and with its own configuration."""

import copy
from typing import Any

from torch import nn
from vllm.compilation.backends import set_model_tag
from vllm.config import VllmConfig
from vllm.lora.layers import BaseLayerWithLoRA
from vllm.model_executor.models.utils import init_vllm_registered_model
from vllm.transformers_utils.config import get_config

from loraloom.server.proxy.pair import FIELD


def build_large(config: VllmConfig, architectures: tuple[str, ...]) -> nn.Module:
    """The large model, whose configuration the engine was started with."""
    with set_model_tag("proxy_large"):
        return init_vllm_registered_model(config, architectures=list(architectures))


def build_small(config: VllmConfig, model: str, name: str, *, rows: int) -> nn.Module:
    """A small model.

    Args:
        config: of the engine.
        model: its directory or Hugging Face id.
        name: begins the names of its attention layers.
        rows: that it computes for each token of a step.
    """
    with set_model_tag(f"proxy_{name}"):
        return init_vllm_registered_model(small_config(config, model, name, rows=rows), prefix=name)


def small_config(config: VllmConfig, model: str, name: str, *, rows: int) -> VllmConfig:
    """The engine's configuration for a small model: unquantized, and compiled for steps with so many rows a token.

    It shares with the engine's what has to be known in one place, the attention layers above all. What vLLM keeps of
    compiled models it finds by their configuration, and not by their weights or names: so those are written into it.
    """
    given: Any = get_config(model, trust_remote_code=False)
    setattr(given, FIELD, [name, rows])
    own = copy.copy(config.with_hf_config(given))
    own.quant_config = None
    own.compilation_config = copy.copy(config.compilation_config)
    endpoints = own.compilation_config.compile_ranges_endpoints
    own.compilation_config.compile_ranges_endpoints = endpoints and [rows * each for each in endpoints]
    return own


def merged_packing(*models: Any) -> dict[str, list[str]]:
    """Which modules of a checkpoint vLLM packs into one, for all models together.

    Raises:
        ValueError: two models pack modules of one name differently.
    """
    merged: dict[str, list[str]] = {}
    for model in models:
        for packed, parts in model.packed_modules_mapping.items():
            if merged.setdefault(packed, parts) != parts:
                raise ValueError(
                    f"the models pack {packed} differently, {merged[packed]} and {parts}, so that vLLM cannot load "
                    "adapters of both: take a small model of the large one's family"
                )
    return merged


def take_lora_off(model: nn.Module, name: str, kind: type[BaseLayerWithLoRA], manager: Any) -> None:
    """Take LoRA off those layers of a small model that no adapter can reach, and free what vLLM holds for them.

    Args:
        model: the small model.
        name: of it in the composite one.
        kind: of layers.
        manager: vLLM's LoRA manager, which has wrapped them.
    """
    for path, layer in list(model.named_modules()):
        if isinstance(layer, kind):
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, layer.base_layer)
    gone = [path for path, layer in manager.modules.items() if path.startswith(f"{name}.") and isinstance(layer, kind)]
    for path in gone:
        del manager.modules[path]
        manager.packed_modules.pop(path, None)
