"""The models inside the composite one, and their configurations."""

import pytest
from torch import nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.lora.layers import BaseLayerWithLoRA
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.llama import LlamaForCausalLM

from loraloom.server.proxy.composite.building import (
    build_large,
    build_small,
    merged_packing,
    small_config,
    take_lora_off,
)
from tests.server.proxy.composite.composing import LLAMA, Models, engine_config

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def config(models: Models) -> VllmConfig:
    return engine_config(models)


def test_each_has_a_configuration_and_names_of_its_own(config: VllmConfig, models: Models) -> None:
    with set_current_vllm_config(config):
        small = [build_small(config, str(models.small), name, rows=2) for name in ("one", "two")]
        built = [build_large(config, LLAMA), *small]
    assert [type(each) for each in built] == [LlamaForCausalLM] * 3
    assert [each.config.hidden_size for each in built] == [32, 16, 16]
    layers = [[each.layer_name for each in model.modules() if isinstance(each, Attention)] for model in built]
    assert layers == [
        ["model.layers.0.self_attn.attn", "model.layers.1.self_attn.attn"],
        ["one.model.layers.0.self_attn.attn"],
        ["two.model.layers.0.self_attn.attn"],
    ]
    assert set(config.compilation_config.static_forward_context) == {name for names in layers for name in names}


def test_a_small_model_has_twice_the_rows_and_no_quantization(config: VllmConfig, models: Models) -> None:
    config.compilation_config.compile_ranges_endpoints = [8, 512]
    config.quant_config = object()  # type: ignore[assignment]
    small = small_config(config, str(models.small), "expert", rows=2)
    assert small.quant_config is None
    assert small.compilation_config.compile_ranges_endpoints == [16, 1024]
    assert small.model_config.hf_config.hidden_size == 16
    assert small.compilation_config.static_forward_context is config.compilation_config.static_forward_context
    assert config.quant_config is not None
    assert config.compilation_config.compile_ranges_endpoints == [8, 512]
    assert config.model_config.hf_config.hidden_size == 32


def test_what_is_compiled_is_kept_apart(config: VllmConfig, models: Models) -> None:
    """vLLM finds compiled models by a hash of their configurations: by that alone one would run as another."""
    made = [("expert", 2), ("expert", 1), ("antiexpert", 1)]
    hashes = {small_config(config, str(models.small), name, rows=rows).compute_hash() for name, rows in made}
    assert len(hashes) == len(made)
    config.compilation_config.compile_ranges_endpoints = [8, 512]
    alone = small_config(config, str(models.small), "expert", rows=1)
    assert alone.compilation_config.compile_ranges_endpoints == [8, 512]


class Packs:
    """As much of a model as the names of its packed modules."""

    def __init__(self, **packed: list[str]) -> None:
        self.packed_modules_mapping = packed


def test_what_is_packed_in_either_model_is_in_both() -> None:
    large, small = Packs(qkv_proj=["q", "k", "v"]), Packs(qkv_proj=["q", "k", "v"], gate_up_proj=["gate", "up"])
    assert merged_packing(large, small) == small.packed_modules_mapping
    with pytest.raises(ValueError, match="pack qkv_proj differently.*take a small model of the large one's family"):
        merged_packing(large, Packs(qkv_proj=["qkv_proj"]))


class Wrapped(BaseLayerWithLoRA):
    """A layer under vLLM's LoRA."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer


class Embedding(Wrapped):
    """One of another kind."""


class Manager:
    """As much of vLLM's LoRA manager as it holds of layers."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.packed_modules = {name: ["part"] for name in modules}


BOTH = ["expert.linear", "large.tokens"]


@pytest.mark.parametrize(("kind", "left"), [(Embedding, BOTH), (Wrapped, BOTH[1:])])
def test_lora_is_taken_off_layers_of_a_kind(kind: type[Wrapped], left: list[str]) -> None:
    model = nn.Module()
    model.tokens, model.linear = Embedding(nn.Identity()), Wrapped(nn.Identity())
    large = Embedding(nn.Identity())
    manager = Manager({"expert.tokens": model.tokens, "expert.linear": model.linear, "large.tokens": large})
    take_lora_off(model, "expert", kind, manager)
    assert sorted(manager.modules) == sorted(manager.packed_modules) == left
    assert isinstance(model.tokens, nn.Identity)
    assert isinstance(model.linear, Wrapped) == ("expert.linear" in left)
