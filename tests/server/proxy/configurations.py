"""What `config.json` of well-known models says, as far as it matters, and directories of such models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraloom.adapters.safetensors_header import write_header

Config = dict[str, Any]


def _decoder(
    kind: str, layers: int, hidden: int, heads: int, kv: int, inner: int, vocab: int, context: int, **more: Any
) -> Config:
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **more,
    }


def _named(name: str, *sizes: Any, **more: Any) -> Config:
    return {"architectures": [name], **_decoder(*sizes, **more)}


_QWEN2 = {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 64}
_QWEN3 = {"use_sliding_window": False, "sliding_window": None, "head_dim": 128}

LLAMA2_70B = _named("LlamaForCausalLM", "llama", 80, 8192, 64, 8, 28672, 32000, 4096)
LLAMA2_7B = _named("LlamaForCausalLM", "llama", 32, 4096, 32, 32, 11008, 32000, 4096)
LLAMA31_70B = _named("LlamaForCausalLM", "llama", 80, 8192, 64, 8, 28672, 128256, 131072)
LLAMA31_8B = _named("LlamaForCausalLM", "llama", 32, 4096, 32, 8, 14336, 128256, 131072)
LLAMA32_1B = {**_named("LlamaForCausalLM", "llama", 16, 2048, 32, 8, 8192, 128256, 131072), "tie_word_embeddings": True}
QWEN25_32B = _named("Qwen2ForCausalLM", "qwen2", 64, 5120, 40, 8, 27648, 152064, 32768, **_QWEN2)
QWEN25_15B = {
    **_named("Qwen2ForCausalLM", "qwen2", 28, 1536, 12, 2, 8960, 151936, 32768, **_QWEN2),
    "tie_word_embeddings": True,
}
QWEN3_8B = _named(
    "Qwen3ForCausalLM", "qwen3", 36, 4096, 32, 8, 12288, 151936, 40960, **_QWEN3, layer_types=["full_attention"] * 36
)
QWEN3_30B_A3B = _named(
    "Qwen3MoeForCausalLM", "qwen3_moe", 48, 2048, 32, 4, 6144, 151936, 40960, **_QWEN3,
    num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
)  # fmt: skip
MISTRAL_V03 = _named("MistralForCausalLM", "mistral", 32, 4096, 32, 8, 14336, 32768, 32768, sliding_window=None)
MISTRAL_V01 = _named("MistralForCausalLM", "mistral", 32, 4096, 32, 8, 14336, 32000, 32768, sliding_window=4096)
MIXTRAL = _named(
    "MixtralForCausalLM", "mixtral", 32, 4096, 32, 8, 14336, 32000, 32768,
    sliding_window=None, num_local_experts=8, num_experts_per_tok=2,
)  # fmt: skip
GEMMA2_9B = _named("Gemma2ForCausalLM", "gemma2", 42, 3584, 16, 8, 14336, 256000, 8192, head_dim=256)
del GEMMA2_9B["tie_word_embeddings"]
GEMMA3_1B = _named(
    "Gemma3ForCausalLM", "gemma3_text", 26, 1152, 4, 1, 6912, 262144, 32768,
    sliding_window=512, sliding_window_pattern=6, head_dim=256,
)  # fmt: skip
PHI3_4K = _named("Phi3ForCausalLM", "phi3", 32, 3072, 32, 32, 8192, 32064, 4096, sliding_window=2047)
PHI3_128K = _named("Phi3ForCausalLM", "phi3", 32, 3072, 32, 32, 8192, 32064, 131072, sliding_window=262144)
GPT_OSS = _named(
    "GptOssForCausalLM", "gpt_oss", 24, 2880, 64, 8, 2880, 201088, 131072, head_dim=64, sliding_window=128,
    num_local_experts=32, num_experts_per_tok=4, layer_types=["sliding_attention", "full_attention"] * 12,
    quantization_config={"quant_method": "mxfp4"},
)  # fmt: skip
DEEPSEEK_V3 = _named(
    "DeepseekV3ForCausalLM", "deepseek_v3", 61, 7168, 128, 128, 18432, 129280, 163840, kv_lora_rank=512,
    n_routed_experts=256, num_experts_per_tok=8, moe_intermediate_size=2048, n_shared_experts=1,
    quantization_config={"quant_method": "fp8"},
)  # fmt: skip
JAMBA = _named(
    "JambaForCausalLM", "jamba", 32, 4096, 32, 8, 14336, 65536, 262144, attn_layer_period=8, mamba_d_state=16,
    num_experts=16, num_experts_per_tok=2,
)  # fmt: skip
QWEN3_NEXT = _named(
    "Qwen3NextForCausalLM", "qwen3_next", 48, 2048, 16, 2, 5120, 151936, 262144, linear_num_key_heads=16,
    num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512,
)  # fmt: skip
LFM2 = _named(
    "Lfm2ForCausalLM", "lfm2", 16, 2048, 32, 8, 6656, 65536, 128000, conv_L_cache=3,
    full_attn_idxs=[2, 5, 8, 10, 12, 14],
)  # fmt: skip
PHI4_MULTIMODAL = _named(
    "Phi4MMForCausalLM", "phi4mm", 32, 3072, 24, 8, 8192, 200064, 131072, sliding_window=262144,
    embd_layer={"embedding_cls": "image_audio"}, audio_processor={"name": "cascades"}, vision_lora={"r": 256},
)  # fmt: skip
MAMBA = {
    "architectures": ["MambaForCausalLM"],
    "model_type": "mamba",
    "num_hidden_layers": 64,
    "hidden_size": 2560,
    "state_size": 16,
    "vocab_size": 50280,
}
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": _decoder("llama", 32, 4096, 32, 32, 11008, 32064, 4096),
    "vision_config": {"model_type": "clip_vision_model"},
}
T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "is_encoder_decoder": True,
    "num_layers": 24,
    "d_model": 1024,
    "num_heads": 32,
    "d_kv": 64,
    "d_ff": 2816,
    "vocab_size": 32128,
}
BERT = _named("BertForMaskedLM", "bert", 12, 768, 12, 12, 3072, 30522, 512)
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}

TOKENIZER = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": []}
SPECIAL = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ messages }}"}


def write_model(
    folder: Path,
    config: Any,
    tokenizer: Any = TOKENIZER,
    special: Any = SPECIAL,
    weights: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """A model's directory; the weights are bfloat16 and take no space on the disk."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    if weights is not None:
        write_weights(folder / "model.safetensors", weights)
    return folder


def write_weights(path: Path, weights: Mapping[str, tuple[int, ...]], dtype: str = "BF16") -> None:
    """A file of tensors with a real header over a hole."""
    header, infos = write_header([(name, dtype, shape) for name, shape in weights.items()])
    with path.open("wb") as file:
        file.write(header)
        file.truncate(max(info.end for info in infos.values()))
