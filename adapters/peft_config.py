"""PEFT's `adapter_config.json`: what it says of a LoRA adapter, and what in it cannot be served.

Follows peft 0.21 (`peft.tuners.lora`, `peft.utils.other.get_pattern_key`) and what vLLM 0.32 accepts
(`vllm.lora.peft_helper`).
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loraloom.adapters.errors import InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.patterns import Patterns

NORMAL_FORM_KEY = "loraloom_normal_form"
"""Marks a configuration in normal form: each module has the rank of its own tensors, and every scaling is 1."""

MAX_RANK = 4096
"""The largest rank that is read. The engine applies ranks up to 512, and work and memory grow with a rank's square."""

_MAX_TEXT = 1000
# Initialisations that leave the base's weights alone. The others (PiSSA, OLoRA, CorDA, LoRA-GA, LoftQ) change them.
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
# What does more than adding B A to a weight, by the field that switches it on.
_REFUSED = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA bias",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA (aLoRA)",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "layer replication",
    "target_parameters": "LoRA of bare parameters (target_parameters)",
    "fan_in_fan_out": "LoRA of transposed weights (fan_in_fan_out)",
}
_CONVERTIBLE = frozenset({"use_dora", "fan_in_fan_out"})
_CONVERT = "`loraloom adapters add FOLDER --base MODEL` converts what can be converted"
PATTERN_SECONDS = 15.0
"""How long matching the patterns of one adapter may take."""


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The fields of `adapter_config.json` that decide what a LoRA adapter computes, and for which base.

    Attributes:
        rank: of the modules that no pattern names.
        alpha: likewise.
        rslora: the scaling is alpha / sqrt(rank), and not alpha / rank.
        rank_pattern: rank by regular expression of module paths; the first that matches counts.
        alpha_pattern: likewise for alpha.
        base_model: a path or id, if one is named.
        task_type: such as "CAUSAL_LM", if it is given.
        normal_form: each module's rank is that of its own tensors.
    """

    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_model: str | None
    task_type: str | None
    normal_form: bool

    def scalings(self, ranks: Mapping[str, int]) -> dict[str, float]:
        """The factor of each module's B A.

        Args:
            ranks: the rank of each module's tensors, by its path in the base model.

        Raises:
            InvalidAdapter: a rank is not what the configuration says.
        """
        deadline = time.monotonic() + PATTERN_SECONDS
        rank_of, alpha_of = Patterns(self.rank_pattern, deadline), Patterns(self.alpha_pattern, deadline)
        scalings = {}
        for path, rank in ranks.items():
            expected = rank_of.get(path, self.rank)
            if rank != expected and not self.normal_form:
                raise InvalidAdapter(f"module {path} has rank {rank}, and adapter_config.json says {expected}")
            alpha = alpha_of.get(path, self.alpha)
            scalings[path] = alpha / (math.sqrt(expected) if self.rslora else expected)
        return scalings


def parse_config(text: bytes) -> PeftConfig:
    """The configuration that the JSON `text` holds.

    Raises:
        InvalidAdapter: not JSON, or a field has the wrong type.
        UnsupportedAdapter: it describes something else than plain LoRA.
    """
    fields = parse_object(text)
    _check_kind(fields)
    return PeftConfig(
        rank=_check_rank("r", _field(fields, "r", int)),
        alpha=_check_alpha("lora_alpha", _field(fields, "lora_alpha", (int, float))),
        rslora=_field(fields, "use_rslora", bool, default=False),
        rank_pattern={k: _check_rank(k, v) for k, v in _field(fields, "rank_pattern", dict, default={}).items()},
        alpha_pattern={k: _check_alpha(k, v) for k, v in _field(fields, "alpha_pattern", dict, default={}).items()},
        base_model=_text(fields, "base_model_name_or_path"),
        task_type=_text(fields, "task_type"),
        normal_form=_field(fields, NORMAL_FORM_KEY, int, default=0) == 1,
    )


def parse_object(text: bytes) -> dict[str, Any]:
    """The fields of the JSON object `text`; raises `InvalidAdapter` if it is none."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidAdapter(f"adapter_config.json is not JSON ({error}): save the adapter again") from error
    if not isinstance(fields, dict):
        raise InvalidAdapter("adapter_config.json is not a JSON object: save the adapter again")
    return fields


def _check_kind(fields: Mapping[str, Any]) -> None:
    kind = _field(fields, "peft_type", str)
    if kind != "LORA":
        raise UnsupportedAdapter(f"it is an adapter of kind {kind[:50]!r}, and not plain LoRA: {_CONVERT}")
    for key, what in _REFUSED.items():
        if fields.get(key):
            raise UnsupportedAdapter(
                f"{what} is not plain LoRA (adapter_config.json sets {key})"
                + (f": {_CONVERT}" if key in _CONVERTIBLE else ", and cannot be converted to it: train it without")
            )
    init = fields.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        raise UnsupportedAdapter(f"it was initialised with {init[:50]!r}, which changes the base's weights: {_CONVERT}")


def _field(fields: Mapping[str, Any], key: str, kind: Any, default: Any = None) -> Any:
    value = fields.get(key)
    if value is None:
        value = default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {int: "an integer", bool: "true or false", str: "a text", dict: "an object"}
        raise InvalidAdapter(
            f"adapter_config.json: {key} is {names.get(kind, 'a number')}, and not {str(value)[:50]!r}"
        )
    return value


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    """A text that can be shown, written as UTF-8 and used as a path; JSON can also hold halves of characters."""
    value = _field(fields, key, str, default="")
    if len(value) > _MAX_TEXT or any(ord(symbol) < 32 or 0xD800 <= ord(symbol) < 0xE000 for symbol in value):
        raise InvalidAdapter(
            f"adapter_config.json: {key} is {value[:50]!r}, and not a text of up to {_MAX_TEXT} letters"
        )
    return value or None


def _check_rank(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        raise InvalidAdapter(
            f"adapter_config.json: the rank {key[:100]!r} is {str(value)[:50]!r}, and not from 1 to {MAX_RANK}"
        )
    return value


def _check_alpha(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e30:
        raise InvalidAdapter(f"adapter_config.json: the alpha {key[:100]!r} is {str(value)[:50]!r}, and not a number")
    return float(value)
