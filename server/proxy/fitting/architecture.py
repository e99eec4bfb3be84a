"""What kind of model a directory holds, and its sizes, as its `config.json` tells."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.errors import InvalidBase
from loraloom.server.footprint import head_dim, kv_heads, text_part

_ALIASES = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "d_ff"),
    "vocab_size": (),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_sequence_length"),
    "num_experts": ("num_local_experts", "n_routed_experts"),
    "num_experts_per_tok": ("moe_topk",),
}
"""How configurations of other kinds call the same number."""

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_MULTIMODAL = (
    "text_config",
    "vision_config",
    "audio_config",
    "thinker_config",
    "img_processor",
    "audio_processor",
    "embd_layer",
    "vision_lora",
    "visual",
)
# transformers leaves out of a file what is the class's default.
_TIED_BY_DEFAULT = ("gemma", "cohere", "gpt2", "opt", "bloom")
_WINDOW_BY_DEFAULT = ("mistral", "ministral", "gemma2", "gemma3", "cohere2", "exaone4", "olmo3", "gpt_oss", "cwm")
_WINDOW_ON_DEMAND = ("qwen2", "qwen3")
_RECURRENT = ("mamba", "ssm_", "linear_attn", "linear_num_", "linear_key_", "lru_", "rwkv")
_RECURRENT_FIELDS = (
    "state_size",
    "attn_layer_period",
    "hybrid_override_pattern",
    "block_types",
    "full_attn_idxs",
    "conv_L_cache",
)
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
_OF_LAYERS = ("num_key_value_heads", "head_dim", "moe_intermediate_size")
"""Further sizes that some configurations give for each layer."""
_UNEVEN = ("block_configs", "num_key_value_heads_per_layer")
"""Fields of models whose layers differ in size."""


@dataclass(frozen=True)
class Architecture:
    """A language model, without its weights. A size that the configuration does not tell is 0.

    Attributes:
        architectures: the names of its classes in transformers.
        layers: how many there are.
        hidden: width of the hidden states.
        query_heads: attention heads of a layer.
        kv_heads: those with keys and values of their own.
        head_dim: dimensions of one head.
        intermediate: width of the feed-forward; of one expert, where there are experts.
        vocab_size: rows of the embedding table, padding included.
        tied: whether the output layer is the embedding table.
        dtype: what the weights are stored in, such as "bfloat16".
        quantization: the method that packed the weights, or None.
        sliding_window: tokens that some layer sees at most, or None where all see everything.
        layer_types: the kind of each layer, where it is told.
        multimodal: whether it also takes images or sound, or is part of a model that does.
        encoder_decoder: whether an encoder reads the prompt.
        latent_attention: whether keys and values are compressed together (MLA).
        recurrent: whether some layer keeps a state instead of keys and values.
        experts: feed-forwards of a layer that a token is routed to, 0 without routing.
        active_experts: how many of these a token passes.
        dense_layers: layers without routing, where others have it.
        max_position_embeddings: the longest sequence, in tokens.
        uneven: whether layers differ in size; the sizes above are the largest then.
        remote_code: whether only code that comes with the model can read its configuration.
    """

    architectures: tuple[str, ...]
    layers: int
    hidden: int
    query_heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab_size: int
    tied: bool
    dtype: str | None
    quantization: str | None
    sliding_window: int | None
    layer_types: tuple[str, ...]
    multimodal: bool
    encoder_decoder: bool
    latent_attention: bool
    recurrent: bool
    experts: int
    active_experts: int
    dense_layers: int
    max_position_embeddings: int
    uneven: bool
    remote_code: bool

    @property
    def embedding(self) -> int:
        """Numbers in the embedding table."""
        return self.vocab_size * self.hidden

    @property
    def idle(self) -> int:
        """Numbers in the experts that one token does not pass."""
        routed = max(0, self.layers - self.dense_layers)
        return routed * (self.experts - self.active_experts) * 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """Numbers in all matrices, of a decoder with gated feed-forwards; biases and norms are left out."""
        attention = 2 * self.hidden * (self.query_heads + self.kv_heads) * self.head_dim
        forward = 3 * self.hidden * self.intermediate * max(1, self.experts)
        return self.layers * (attention + forward) + self.embedding * (1 if self.tied else 2)

    @property
    def cached(self) -> int:
        """Numbers in the KV cache for one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim


def read_architecture(folder: Path) -> Architecture:
    """The model in a directory.

    Raises:
        InvalidBase: it has no `config.json`, or a damaged one.
    """
    file = folder / "config.json"
    try:
        return parse_architecture(json.loads(file.read_bytes()))
    except OSError as error:
        raise InvalidBase(
            f"{folder} has no config.json: give a model as transformers' save_pretrained writes it"
        ) from (error)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, RecursionError) as error:
        raise InvalidBase(f"{file} is damaged: download the model again") from error


def parse_architecture(config: Mapping[str, Any]) -> Architecture:
    """The model that a configuration describes; raises the errors of Python where it has other types than it should."""
    given = {**config, **text_part(config)}
    text = _canonical({**given, **_largest(given)})
    heads, context = text["num_attention_heads"], text["max_position_embeddings"]
    return Architecture(
        architectures=tuple(config.get("architectures") or ()),
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        query_heads=heads,
        kv_heads=kv_heads(text),
        head_dim=head_dim(text) if heads else 0,
        intermediate=text.get("moe_intermediate_size") or text["intermediate_size"] or 4 * text["hidden_size"],
        vocab_size=text["vocab_size"],
        tied=bool(text.get("tie_word_embeddings", _kind(text).startswith(_TIED_BY_DEFAULT))),
        dtype=text.get("dtype") or text.get("torch_dtype"),
        quantization=_quantization(text),
        sliding_window=_window(text, context),
        layer_types=tuple(text.get("layer_types") or ()),
        multimodal=any(config.get(field) is not None for field in _MULTIMODAL),
        encoder_decoder=bool(config.get("is_encoder_decoder")),
        latent_attention=bool(text.get("kv_lora_rank")),
        recurrent=_recurrent(text),
        experts=text["num_experts"],
        active_experts=text["num_experts_per_tok"],
        dense_layers=int(text.get("first_k_dense_replace") or len(text.get("mlp_only_layers") or ())),
        max_position_embeddings=context,
        uneven=_uneven(given),
        remote_code=bool(config.get("auto_map")) and not _is_in_transformers(_kind(config)),
    )


def unsuited(architecture: Architecture) -> Iterator[str]:
    """Why a model of this kind cannot take part in proxy-tuning, large or small."""
    if architecture.encoder_decoder:
        yield "it is an encoder-decoder model"
    elif architecture.multimodal:
        yield "it is multimodal, or stored as the text part of a multimodal model"
    elif not any(name.endswith(_CAUSAL) for name in architecture.architectures):
        named = ", ".join(architecture.architectures) or "nothing"
        yield f"it is not a causal language model (its config.json names {named})"
    if architecture.uneven:
        yield "layers of different sizes are not supported"
    if architecture.recurrent:
        yield "some of its layers keep a state instead of keys and values (Mamba, linear attention and their kin)"
    if architecture.latent_attention:
        yield "its keys and values are compressed together (MLA)"
    if architecture.sliding_window:
        yield f"its attention slides over the last {architecture.sliding_window} tokens"


def _canonical(text: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the usual names, 0 for what is told under none of them."""
    found = {
        name: int(next((text[each] for each in (name, *aliases) if text.get(each) is not None), 0))
        for name, aliases in _ALIASES.items()
    }
    return {**text, **found}


def _layered(text: Mapping[str, Any]) -> dict[str, list[int]]:
    """The sizes that are given for each layer."""
    names = (*(each for name, aliases in _ALIASES.items() for each in (name, *aliases)), *_OF_LAYERS)
    found = {name: text[name] for name in names if isinstance(text.get(name), list) and text[name]}
    return {name: [int(each) for each in sizes] for name, sizes in found.items()}


def _largest(text: Mapping[str, Any]) -> dict[str, int]:
    return {name: max(sizes) for name, sizes in _layered(text).items()}


def _uneven(text: Mapping[str, Any]) -> bool:
    differ = any(len(set(sizes)) > 1 for sizes in _layered(text).values())
    return differ or any(text.get(field) is not None for field in _UNEVEN)


def _is_in_transformers(kind: str) -> bool:
    """Whether transformers has this kind itself: many a model of such a kind still names code of its own."""
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING


def _kind(text: Mapping[str, Any]) -> str:
    return str(text.get("model_type", ""))


def _quantization(text: Mapping[str, Any]) -> str | None:
    settings = text.get("quantization_config") or text.get("compression_config")
    return None if not settings else str(settings.get("quant_method") or "an unnamed method")


def _window(text: Mapping[str, Any], context: int) -> int | None:
    """The sliding window, where it is in use. Many configurations name one that is not.

    Qwen 2 and 3 name one and switch it off; the window of Phi-3 with long context is longer than that; Mistral writes
    null, and means 4096 when it writes nothing.
    """
    types = text.get("layer_types")
    if types and not any(kind in _ATTENTION[1:] for kind in types):
        return None
    if not text.get("use_sliding_window", not _kind(text).startswith(_WINDOW_ON_DEMAND)):
        return None
    if text.get("use_sliding_window") and text.get("max_window_layers", 0) >= text["num_hidden_layers"]:
        return None
    unsaid = 4096 if _kind(text).startswith(_WINDOW_BY_DEFAULT) else None
    window = text.get("sliding_window", unsaid) or text.get("attention_chunk_size")
    return window if window and not 0 < context <= window else None


def _recurrent(text: Mapping[str, Any]) -> bool:
    return (
        any(field.startswith(_RECURRENT) or field in _RECURRENT_FIELDS for field in text)
        or any(part in _kind(text) for part in ("mamba", "rwkv"))
        or any(kind not in _ATTENTION for kind in text.get("layer_types") or ())
        or 0 in (text.get("attn_type_list") or ())
    )
