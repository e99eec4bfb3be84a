"""Tiny seeded models of several architectures."""

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "gemma2": Gemma2Config(**SIZES, final_logit_softcapping=3.0, attn_logit_softcapping=5.0, sliding_window=64),
    "mistral, short window": MistralConfig(**SIZES, sliding_window=10),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=96, initializer_range=0.2),
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=96, initializer_range=0.2),
    "mamba": MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=96, state_size=4, initializer_range=0.2),
}


def tiny(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of that architecture, always with the same weights."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32)
    torch.nn.Module.eval(model)
    torch.nn.Module.to(model, dtype)
    return model
