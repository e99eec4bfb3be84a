"""The models inside the composite one, and their configurations."""

import pytest
from torch import nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.lora.layers import VocabParallelEmbeddingWithLoRA
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.models.llama import LlamaForCausalLM

from loraloom.server.proxy.composite.building import build_large, build_small, small_config, unwrap_embedding
from tests.server.proxy.composite.composing import LLAMA, Models, engine_config

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def config(models: Models) -> VllmConfig:
    return engine_config(models)


def test_each_has_a_configuration_and_names_of_its_own(config: VllmConfig, models: Models) -> None:
    with set_current_vllm_config(config):
        built = [build_large(config, LLAMA), *(build_small(config, str(models.small), name) for name in ("one", "two"))]
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
    small = small_config(config, str(models.small))
    assert small.quant_config is None
    assert small.compilation_config.compile_ranges_endpoints == [16, 1024]
    assert small.model_config.hf_config.hidden_size == 16
    assert small.compilation_config.static_forward_context is config.compilation_config.static_forward_context
    assert config.quant_config is not None
    assert config.compilation_config.compile_ranges_endpoints == [8, 512]
    assert config.model_config.hf_config.hidden_size == 32


class Embeds(nn.Module):
    """As much of a model as its embedding, under vLLM's LoRA."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = embedding


def test_lora_is_taken_off_an_embedding() -> None:
    plain = VocabParallelEmbedding(16, 8)
    model = Embeds(VocabParallelEmbeddingWithLoRA(plain))
    unwrap_embedding(model)
    assert model.model.embed_tokens is plain
