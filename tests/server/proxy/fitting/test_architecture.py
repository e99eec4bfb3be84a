"""What `config.json` tells of well-known models."""

from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.errors import InvalidBase
from loraloom.server.proxy.fitting.architecture import Architecture, parse_architecture, read_architecture, unsuited
from tests.server.proxy import configurations as known


def test_every_number_of_llama(tmp_path: Path) -> None:
    assert read_architecture(known.write_model(tmp_path / "llama", known.LLAMA31_8B)) == Architecture(
        architectures=("LlamaForCausalLM",),
        layers=32,
        hidden=4096,
        query_heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=14336,
        vocab_size=128256,
        tied=False,
        dtype="bfloat16",
        quantization=None,
        sliding_window=None,
        layer_types=(),
        multimodal=False,
        encoder_decoder=False,
        latent_attention=False,
        recurrent=False,
        experts=0,
        active_experts=0,
        dense_layers=0,
        max_position_embeddings=131072,
        uneven=False,
        remote_code=False,
    )


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (known.LLAMA2_7B, 6.74),
        (known.LLAMA2_70B, 68.98),
        (known.LLAMA31_8B, 8.03),
        (known.LLAMA31_70B, 70.55),
        (known.LLAMA32_1B, 1.236),
        (known.QWEN25_15B, 1.544),
        (known.QWEN25_32B, 32.76),
        (known.QWEN3_8B, 8.19),
        (known.GEMMA2_9B, 9.24),
        (known.MIXTRAL, 46.70),
        (known.QWEN3_30B_A3B, 30.53),
    ],
)
def test_parameters_are_those_that_the_model_cards_say(config: known.Config, billions: float) -> None:
    assert parse_architecture(config).parameters / 1e9 == pytest.approx(billions, rel=2e-3)


def test_a_token_passes_few_of_many_experts() -> None:
    sparse = parse_architecture(known.QWEN3_30B_A3B)
    assert (sparse.experts, sparse.active_experts, sparse.intermediate) == (128, 8, 768)
    assert (sparse.parameters - sparse.idle) / 1e9 == pytest.approx(3.35, rel=5e-3)
    assert parse_architecture(known.LLAMA31_8B).idle == 0


@pytest.mark.parametrize("dense", [{"first_k_dense_replace": 3}, {"mlp_only_layers": [0, 1, 2]}])
def test_a_layer_without_routing_has_no_idle_experts(dense: known.Config) -> None:
    every = parse_architecture(known.QWEN3_30B_A3B)
    some = parse_architecture({**known.QWEN3_30B_A3B, **dense})
    assert some.idle * 48 == every.idle * 45


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (known.QWEN25_32B, None),
        ({**known.QWEN25_32B, "use_sliding_window": True}, None),  # from layer 64 on, of 64
        ({**known.QWEN25_15B, "use_sliding_window": True, "max_window_layers": 20, "sliding_window": 4096}, 4096),
        ({**known.QWEN25_32B, "layer_types": ["full_attention"] * 64}, None),
        ({"model_type": "qwen2", "max_position_embeddings": 32768, "sliding_window": 4096}, None),
        (known.QWEN3_8B, None),
        (known.MISTRAL_V03, None),
        (known.MISTRAL_V01, 4096),
        ({name: value for name, value in known.MISTRAL_V01.items() if name != "sliding_window"}, 4096),
        (known.MIXTRAL, None),
        (known.GEMMA2_9B, 4096),
        (known.GEMMA3_1B, 512),
        (known.PHI3_4K, 2047),
        (known.PHI3_128K, None),
        (known.GPT_OSS, 128),
        ({**known.LLAMA31_8B, "attention_chunk_size": 8192}, 8192),
    ],
)
def test_a_sliding_window_counts_where_it_is_in_use(config: known.Config, window: int | None) -> None:
    assert parse_architecture(config).sliding_window == window


@pytest.mark.parametrize(
    "config",
    [known.LLAMA2_70B, known.QWEN25_32B, known.QWEN3_8B, known.QWEN3_30B_A3B, known.MISTRAL_V03, known.MIXTRAL,
     known.PHI3_128K, known.GPT2, {**known.MIXTRAL, "attn_type_list": [1, 1]}],
)  # fmt: skip
def test_what_can_be_tuned(config: known.Config) -> None:
    assert list(unsuited(parse_architecture(config))) == []


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (known.GEMMA2_9B, "its attention slides over the last 4096 tokens"),
        (known.DEEPSEEK_V3, "compressed together (MLA)"),
        (known.MAMBA, "a state instead of keys and values"),
        (known.JAMBA, "a state instead of keys and values"),
        (known.QWEN3_NEXT, "a state instead of keys and values"),
        ({**known.LLAMA31_8B, "layer_types": ["conv", "full_attention"]}, "a state instead of keys and values"),
        ({**known.MIXTRAL, "attn_type_list": [0, 1]}, "a state instead of keys and values"),
        ({**known.GPT2, "model_type": "rwkv"}, "a state instead of keys and values"),
        (known.LFM2, "a state instead of keys and values"),
        (known.LLAVA, "it is multimodal"),
        (known.PHI4_MULTIMODAL, "it is multimodal"),
        ({**known.LLAMA31_8B, "num_key_value_heads": [8, 4, 8]}, "layers of different sizes are not supported"),
        ({**known.LLAMA31_8B, "intermediate_size": [8192, 4096]}, "layers of different sizes are not supported"),
        ({**known.LLAMA31_8B, "block_configs": [{}, {}]}, "layers of different sizes are not supported"),
        (known.T5, "it is an encoder-decoder model"),
        (known.BERT, "not a causal language model (its config.json names BertForMaskedLM)"),
        ({**known.BERT, "architectures": None}, "names nothing"),
    ],
)
def test_what_cannot(config: known.Config, reason: str) -> None:
    (told,) = unsuited(parse_architecture(config))
    assert reason in told


def test_sizes_of_each_layer_that_do_not_differ() -> None:
    config = {**known.LLAMA31_8B, "num_attention_heads": [32] * 32, "num_key_value_heads": [8] * 32}
    assert parse_architecture(config) == parse_architecture(known.LLAMA31_8B)


def test_code_that_comes_with_a_model_counts_where_transformers_has_none() -> None:
    code = {"auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    assert not parse_architecture({**known.LLAMA31_8B, **code}).remote_code
    assert parse_architecture({**known.LLAMA31_8B, **code, "model_type": "own-kind"}).remote_code
    assert not parse_architecture({**known.LLAMA31_8B, "model_type": "own-kind"}).remote_code


def test_other_names_for_the_same_sizes() -> None:
    gpt = parse_architecture(known.GPT2)
    assert (gpt.layers, gpt.hidden, gpt.query_heads, gpt.kv_heads, gpt.head_dim) == (12, 768, 12, 12, 64)
    assert (gpt.intermediate, gpt.max_position_embeddings, gpt.tied) == (3072, 1024, True)


def test_the_text_model_inside_another() -> None:
    assert parse_architecture(known.LLAVA).layers == 32


@pytest.mark.parametrize(
    ("changes", "quantization"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"compression_config": {"format": "int"}}, "an unnamed method"),
        ({"quantization_config": None}, None),
    ],
)
def test_quantization(changes: dict[str, Any], quantization: str | None) -> None:
    assert parse_architecture({**known.LLAMA31_8B, **changes}).quantization == quantization


def test_tied_embeddings_are_the_default_of_some_classes() -> None:
    assert parse_architecture(known.GEMMA2_9B).tied
    untold = {name: value for name, value in known.LLAMA31_8B.items() if name != "tie_word_embeddings"}
    assert not parse_architecture(untold).tied


def test_a_model_that_transformers_wrote(tiny_base: Path) -> None:
    tiny = read_architecture(tiny_base)
    assert (tiny.layers, tiny.hidden, tiny.query_heads, tiny.kv_heads, tiny.vocab_size) == (2, 32, 4, 2, 96)
    assert (tiny.tied, tiny.dtype, tiny.cached) == (True, "float32", 2 * 2 * 2 * 8)


@pytest.mark.parametrize("config", [[], {"hidden_size": "wide"}, {"text_config": None}, {"quantization_config": 1}])
def test_a_damaged_configuration(tmp_path: Path, config: Any) -> None:
    with pytest.raises(InvalidBase, match="is damaged"):
        read_architecture(known.write_model(tmp_path / "model", config))
    with pytest.raises(InvalidBase, match=r"has no config\.json"):
        read_architecture(tmp_path)
