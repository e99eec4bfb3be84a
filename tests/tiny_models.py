"""A tiny seeded Llama, and adapters that peft made for it: fixtures for every test."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeAdapter = Callable[..., Path]


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=96, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(["select the date from the table where the name is known"] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)


def _save_llama(folder: Path, **fields: Any) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        **{"tie_word_embeddings": True, **fields},
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama of 32 dimensions with grouped-query attention and tied embeddings, with its tokenizer."""
    return _save_llama(tmp_path_factory.mktemp("base") / "tiny-llama")


@pytest.fixture(scope="session")
def biased_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with biases in its attention and an output layer of its own."""
    folder = tmp_path_factory.mktemp("base") / "biased-llama"
    return _save_llama(folder, attention_bias=True, tie_word_embeddings=False)


@pytest.fixture
def make_adapter(tiny_base: Path, tmp_path: Path) -> MakeAdapter:
    """A callable `make_adapter(name="sql", seed=0, dtype="float32", model=tiny_base, **LoraConfig fields) -> folder`.

    The adapter is saved by peft, with random A and B, so that it changes every target module.
    """

    def make(name: str = "sql", seed: int = 0, dtype: str = "float32", model: Path = tiny_base, **fields: Any) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        defaults = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
        config = LoraConfig(**{**defaults, **fields})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft_model = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in peft_model.named_parameters():
                if "lora_" in key:
                    parameter.normal_(std=0.1, generator=generator)
        folder = tmp_path / "given" / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft_model.to(getattr(torch, dtype)).save_pretrained(folder)
        return folder

    return make
