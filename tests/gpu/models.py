"""Llama models made on the spot, without downloads: of a real one's shape without weights, or small and random."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from loraloom.adapters.safetensors_header import write_header

END = "<|end|>"
"""The end of an answer; its id is 0."""
FIRST_WORD = 257
"""The first token id behind the end's and those of the 256 bytes."""
CHAT = "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}assistant:"
SPREAD = 1.0
"""Standard deviation of what a layer of the random model puts out, for inputs of 1. At 1.5 already, what float16 rounds
turns three times as many answers."""


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes, under the names of its configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = False

    @property
    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The names and shapes of its weights."""
        hidden, inner = self.hidden_size, self.intermediate_size
        keys = hidden // self.num_attention_heads * self.num_key_value_heads
        yield "model.embed_tokens.weight", (self.vocab_size, hidden)
        for layer in (f"model.layers.{number}" for number in range(self.num_hidden_layers)):
            yield f"{layer}.input_layernorm.weight", (hidden,)
            yield f"{layer}.self_attn.q_proj.weight", (hidden, hidden)
            yield f"{layer}.self_attn.k_proj.weight", (keys, hidden)
            yield f"{layer}.self_attn.v_proj.weight", (keys, hidden)
            yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
            yield f"{layer}.post_attention_layernorm.weight", (hidden,)
            yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
            yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
            yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
        yield "model.norm.weight", (hidden,)
        if not self.tie_word_embeddings:
            yield "lm_head.weight", (self.vocab_size, hidden)

    @property
    def words(self) -> range:
        """The ids of ordinary tokens, each a word when decoded."""
        return range(FIRST_WORD, self.vocab_size)


SEVEN_B = Shape(4096, 11008, 32, 32, 32, 32_000)
"""Llama 2 7B's."""
EIGHT_B = Shape(4096, 14_336, 32, 32, 8, 128_256, 8192)
"""Llama 3.1 8B's."""
ONE_B = Shape(2048, 8192, 16, 32, 8, 128_256, 8192, tie_word_embeddings=True)
"""Llama 3.2 1B's."""
SMALL = Shape(512, 1408, 6, 8, 4, 1024)
TINY = Shape(128, 352, 2, 4, 2, 512)

Rounding: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Makes float16 numbers of others."""


def half(numbers: np.ndarray) -> np.ndarray:
    """The nearest float16 numbers."""
    return numbers.astype(np.float16)


def coarse(numbers: np.ndarray) -> np.ndarray:
    """The nearest numbers that float16 and bfloat16 both have, as float16: of 8 binary digits, and none too small."""
    fractions, exponents = np.frexp(numbers.astype(np.float32))
    rounded = np.ldexp(np.round(fractions * 256) / 256, exponents)
    return np.where(np.abs(rounded) < 2.0**-17, 0, rounded).astype(np.float16)


def write_dummy(folder: Path, shape: Shape) -> Path:
    """A model for `--load-format dummy`: its weights' file tells their names, shapes and type, and has a hole for data.

    Returns:
        The folder, in which nothing is done if the model is there already.
    """
    weights = folder / "model.safetensors"
    if not weights.exists():
        header, places = write_header((name, "BF16", sizes) for name, sizes in shape.tensors)
        _write_about(folder, shape, "bfloat16")
        with weights.open("wb") as file:
            file.write(header)
            file.truncate(max(place.end for place in places.values()))
    return folder


def write_random(folder: Path, shape: Shape, seed: int = 0, rounding: Rounding = half) -> Path:
    """A model of random weights in float16, so that the engine and its reference begin with the same numbers."""
    _write_about(folder, shape, "float16")
    random = np.random.default_rng(seed)
    save_file(
        {name: rounding(_weights(random, name, sizes)) for name, sizes in shape.tensors},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def _weights(random: np.random.Generator, name: str, sizes: tuple[int, ...]) -> np.ndarray:
    if len(sizes) == 1:
        return np.ones(sizes, dtype=np.float32)
    inputs = 1 if name == "model.embed_tokens.weight" else sizes[1]
    return random.standard_normal(sizes, dtype=np.float32) * np.float32(SPREAD / inputs**0.5)


def _write_about(folder: Path, shape: Shape, dtype: str) -> None:
    """Everything but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", _config(shape, dtype))
    _tokenizer(shape.vocab_size).save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "chat_template": CHAT,
        },
    )


def _config(shape: Shape, dtype: str) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": dtype,
        **vars(shape),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
    }


def _tokenizer(size: int) -> Tokenizer:
    """Text becomes its bytes, without merges; further ids, which text never gives, are words when they are decoded."""
    pieces = [END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [f"Ġ{number}" for number in range(len(pieces), size)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
