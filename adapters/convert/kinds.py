"""Which kinds of adapter there are, and what is done with each: by configuration alone, without torch or peft.

Follows peft 0.21 (`peft.utils.peft_types`); which kinds merge into linear layers, and at which rank, was tried out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loraloom.adapters.convert.initial import initial_folder
from loraloom.adapters.errors import InvalidAdapter, UnsupportedAdapter
from loraloom.adapters.manifest import read_config, read_tensors
from loraloom.adapters.peft_config import parse_config, parse_object

Treatment = Literal["plain", "exact", "approximate"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What an adapter is.

    Attributes:
        name: as its authors write it, such as "DoRA".
        treatment: "plain" is stored as it is; "exact" has an update of low rank, which LoRA holds; the update of an
            "approximate" one has any rank, and is truncated.
        changes_base: its initial A and B were taken out of the base's weights.
    """

    name: str
    treatment: Treatment
    changes_base: bool = False


_EXACT = {
    "ADALORA": "AdaLoRA", "ADAMSS": "AdaMSS", "DEFT": "DEFT", "DELORA": "DeLoRA", "GRALORA": "GraLoRA", "HRA": "HRA",
    "LOHA": "LoHa", "MISS": "MiSS", "PSOFT": "PSOFT", "PVERA": "PVeRA", "TINYLORA": "TinyLoRA", "UNILORA": "Uni-LoRA",
    "VBLORA": "VB-LoRA", "VERA": "VeRA",
}  # fmt: skip
_APPROXIMATE = {
    "BOFT": "BOFT", "C3A": "C3A", "FOURIERFT": "FourierFT", "FROD": "FRoD", "GLORA": "GLoRA", "HIRA": "HiRA",
    "IA3": "(IA)³", "LOKR": "LoKr", "OFT": "OFT", "OSF": "OSF", "PEANUT": "PEANuT", "RANDLORA": "RandLoRA",
    "ROAD": "RoAd", "SHIRA": "SHiRA", "SUPERTUNING": "SuperTuning", "WAVEFT": "WaveFT",
}  # fmt: skip

_VIRTUAL = "it learns virtual tokens and changes no weight. Train a LoRA on the same data"
_ROUTER = "its weights depend on the input. Add its LoRA adapters one by one and mix them (name+name)"
_TOKENS = "trained tokens are no update of a linear layer. Train a LoRA without new tokens on the same data"
_REFUSED = {
    "PROMPT_TUNING": ("prompt tuning", _VIRTUAL),
    "PREFIX_TUNING": ("prefix tuning", _VIRTUAL),
    "P_TUNING": ("P-tuning", _VIRTUAL),
    "MULTITASK_PROMPT_TUNING": ("multitask prompt tuning", _VIRTUAL),
    "ADAPTION_PROMPT": ("an adaption prompt (LLaMA-Adapter)", _VIRTUAL),
    "CPT": ("context-aware prompt tuning", _VIRTUAL),
    "CARTRIDGE": ("a cartridge", _VIRTUAL),
    "LN_TUNING": ("LN tuning", "it trains norms, which LoRA cannot change. Train a LoRA on the same data"),
    "BEFT": ("BEFT", "it trains biases, which LoRA cannot change. Train a LoRA on the same data"),
    "XLORA": ("X-LoRA", _ROUTER),
    "POLY": ("Poly", _ROUTER),
    "TRAINABLE_TOKENS": ("trainable tokens", _TOKENS),
    "LILY": ("Lily", "peft cannot merge it into the weights. Train a LoRA on the same data"),
    "SHADOW": ("Shadow", "peft cannot merge it into the weights. Train a LoRA on the same data"),
}
# What goes with an adapter of any kind, by the field that says so.
_REFUSED_FIELDS = {
    "modules_to_save": (
        "whole trained modules (modules_to_save)",
        "which LoRA cannot hold. Train without modules_to_save, or merge the adapter into the model and serve that",
    ),
    "trainable_token_indices": ("trained tokens (trainable_token_indices)", _TOKENS),
    "target_parameters": ("updates of bare parameters (target_parameters)", "LoRA of linear layers only is served"),
}
_CHANGED_BASE = {"pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "lora_ga": "LoRA-GA"}
# Whose initial A and B peft computes from the base's weights alone, and without chance (PiSSA by a full SVD only).
_DERIVED_AGAIN = frozenset({"pissa", "olora"})


def kind_of(folder: Path) -> Kind:
    """The kind of the adapter in `folder`.

    Raises:
        InvalidAdapter: the files are missing or damaged.
        UnsupportedAdapter: it is of a kind that neither is plain LoRA nor can be converted to it; with the reason.
    """
    fields = parse_object(read_config(folder))
    name = fields.get("peft_type")
    if not isinstance(name, str):
        raise InvalidAdapter("adapter_config.json names no peft_type: save the adapter again with peft")
    if name == "LORA":
        return _lora(fields, folder)
    if name in _REFUSED:
        what, reason = _REFUSED[name]
        raise UnsupportedAdapter(f"{what} cannot be converted to LoRA: {reason}")
    if name not in _EXACT and name not in _APPROXIMATE:
        raise UnsupportedAdapter(
            f"adapters of kind {name[:50]!r} are not known here. Where peft can merge it, merge it into its base and "
            "give that model with --base: what it learned is extracted"
        )
    _check_fields(fields)
    _check_biases(folder)
    return Kind(_EXACT[name], "exact") if name in _EXACT else Kind(_APPROXIMATE[name], "approximate")


def _lora(fields: Mapping[str, Any], folder: Path) -> Kind:
    init = str(fields.get("init_lora_weights")).lower()
    changed = _CHANGED_BASE.get(init.partition("_niter_")[0])
    transposed = bool(fields.get("fan_in_fan_out"))
    if not (changed or transposed or fields.get("use_dora")):
        parse_config(json.dumps(fields).encode())
        return Kind("EVA" if init == "eva" else "LoRA", "plain")
    parse_config(json.dumps({**fields, **_WITHOUT, **({"init_lora_weights": True} if changed else {})}).encode())
    _check_fields(fields)
    _check_biases(folder)
    if changed:
        return _on_changed_base(changed, init, fields, folder)
    return Kind("DoRA", "approximate") if fields.get("use_dora") else Kind("LoRA of transposed weights", "exact")


# What a conversion takes care of.
_WITHOUT = {"use_dora": False, "fan_in_fan_out": False}


def _on_changed_base(name: str, init: str, fields: Mapping[str, Any], folder: Path) -> Kind:
    if fields.get("use_dora"):
        raise UnsupportedAdapter(
            f"DoRA initialised by {name} cannot be converted: merge it into its base with peft, and give that model "
            "with --base, so that what it learned is extracted"
        )
    if init not in _DERIVED_AGAIN and initial_folder(folder) is None:
        raise UnsupportedAdapter(
            f"{name} changes the base's weights by its initial A and B, which are not in the folder and cannot be "
            "computed again: save the adapter with peft's "
            "save_pretrained(…, path_initial_model_for_weight_conversion=…), which makes it plain LoRA, or put the "
            "initial adapter into the folder as `initial`"
        )
    return Kind(name, "exact", changes_base=True)


def _check_fields(fields: Mapping[str, Any]) -> None:
    for key, (what, reason) in _REFUSED_FIELDS.items():
        if fields.get(key):
            raise UnsupportedAdapter(f"it comes with {what}: {reason}")


def _check_biases(folder: Path) -> None:
    biases = [name for name in read_tensors(folder) if name.endswith(".bias")]
    if biases:
        raise UnsupportedAdapter(
            f"it comes with trained biases, such as {biases[0][:200]!r}, and LoRA changes no bias: train it with "
            'bias="none"'
        )
