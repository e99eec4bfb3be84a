"""The base model that adapters are checked against: the shapes of its modules, and its tokenizer.

Everything is read from the headers of the safetensors files and from the tokenizer's files, without torch.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from loraloom.adapters import hub
from loraloom.adapters.errors import BaseMismatch, InvalidBase
from loraloom.adapters.manifest import Manifest
from loraloom.adapters.safetensors_header import BadHeader, read_header
from loraloom.adapters.tokenizer import TOKENIZER_FILES, tokenizer_digest

Shape: TypeAlias = tuple[int, int] | None
"""(out_features, in_features), or None where a quantised checkpoint packs the weight and does not tell."""

Weights: TypeAlias = Mapping[str, tuple[str, Sequence[int]]]
"""The type and shape of each tensor, by its name."""

_INDEX_FILE = "model.safetensors.index.json"
_SINGLE_FILE = "model.safetensors"
# GPTQ and AWQ, compressed-tensors: the packed weight's own shape is not the module's.
_PACKED = frozenset({"qweight", "weight_packed"})
# Several values to an element, as bitsandbytes and NVFP4 store them.
_PACKED_DTYPES = frozenset({"U8", "I32"})
_SHOWN = 3


@dataclass(frozen=True)
class BaseFingerprint:
    """What identifies a base model to its adapters.

    Attributes:
        modules: the modules whose weight is a matrix, by their paths, such as "model.layers.0.self_attn.q_proj".
        tokenizer: 64 hex digits that identify the map from tokens to ids, or None without a known tokenizer.
    """

    modules: Mapping[str, Shape]
    tokenizer: str | None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of both, in hex digits."""
        text = json.dumps([sorted(self.modules.items()), self.tokenizer], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class _OutOfReach(InvalidBase):
    """There is no such model here, and none that can be fetched."""


def fingerprint(model: str | Path) -> BaseFingerprint:
    """The fingerprint of a local model directory, or of a Hugging Face id.

    An id is looked up in the local cache first; otherwise only the headers of its weights are fetched.

    Raises:
        InvalidBase: there is no such model within reach, or its files cannot be read.
    """
    if os.path.isdir(model):  # unlike Path.is_dir, False for a text that can be no path
        return _folder_fingerprint(Path(model))
    return _hub_fingerprint(str(model))


def find_fingerprint(model: str) -> BaseFingerprint | None:
    """The fingerprint of `model`, or None when there is no such model within reach.

    Raises:
        InvalidBase: the model is there, and its files cannot be read.
    """
    try:
        return fingerprint(model)
    except _OutOfReach:
        return None


def check_fits(manifest: Manifest, base: BaseFingerprint) -> None:
    """Check that every module of the adapter is one of the base's, of the same shape.

    Raises:
        BaseMismatch: with the modules that match nothing, and those of another shape.
    """
    faults, missing, wrong = [], [], []
    for path, module in manifest.modules.items():
        found = _find(base.modules, path)
        if found is None:
            missing.append(path)
        elif (shape := base.modules[found]) not in (None, (module.out_features, module.in_features)):
            wrong.append(f"{path} ({module.out_features} x {module.in_features}, there {shape[0]} x {shape[1]})")
    total = len(manifest.modules)
    if missing:
        faults.append(f"{len(missing)} of {total} modules are not in the base: {_some(missing)}")
    if wrong:
        faults.append(f"{len(wrong)} of {total} modules have another shape (out x in) there: {_some(wrong)}")
    if faults:
        raise BaseMismatch(f"{'; '.join(faults)}. Name the base model that the adapter was trained on")


def _find(modules: Mapping[str, Shape], path: str) -> str | None:
    """The base's name for `path`: some checkpoints leave out the first part ("h.0…" for "transformer.h.0…")."""
    candidates = (path, path.partition(".")[2])
    return next((candidate for candidate in candidates if candidate in modules), None)


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", …" if len(items) > _SHOWN else "")


def _folder_fingerprint(folder: Path) -> BaseFingerprint:
    return BaseFingerprint(_modules(_folder_weights(folder)), tokenizer_digest(folder))


def _hub_fingerprint(repo: str) -> BaseFingerprint:
    from huggingface_hub import errors

    try:
        folder = hub.cached_folder(repo, (_SINGLE_FILE, _INDEX_FILE))
        weights = _folder_weights(folder) if folder and _is_complete(folder) else hub.weights(repo)
        tokenizer = hub.first_file(repo, TOKENIZER_FILES)
    except (errors.NotASafetensorsRepoError, errors.SafetensorsParsingError) as error:
        raise InvalidBase(f"{repo!r} has no weights as safetensors on the Hugging Face Hub: {error}") from error
    except InvalidBase:
        raise
    except Exception as error:
        raise _OutOfReach(hub.explain(error, repo)) from error
    return BaseFingerprint(_modules(weights), tokenizer_digest(tokenizer.parent) if tokenizer else None)


def _is_complete(folder: Path) -> bool:
    try:
        return bool(_weight_files(folder))
    except InvalidBase:
        return False


def _folder_weights(folder: Path) -> Weights:
    return {name: tensor for path in _weight_files(folder) for name, tensor in _header(path).items()}


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the model's weights; raises `InvalidBase` when they are not all there."""
    if (folder / _SINGLE_FILE).is_file():
        return [folder / _SINGLE_FILE]
    if not (folder / _INDEX_FILE).is_file():
        raise InvalidBase(f"{folder} has no {_SINGLE_FILE}: give a model as transformers' save_pretrained writes it")
    try:
        names = set(json.loads((folder / _INDEX_FILE).read_bytes())["weight_map"].values())
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise InvalidBase(f"{folder / _INDEX_FILE} is damaged: download the model again") from error
    files = [folder / Path(str(name)).name for name in sorted(names, key=str)]
    if absent := [file.name for file in files if not file.is_file()]:
        raise InvalidBase(f"{folder} lacks {_some(absent)}: download the model again")
    return files


def _header(path: Path) -> Weights:
    """The type and shape of each tensor in a safetensors file."""
    try:
        with path.open("rb") as file:
            infos = read_header(file, path.stat().st_size)
    except (BadHeader, OSError) as error:
        raise InvalidBase(f"{path} cannot be read: {error}. Download the model again") from error
    return {name: (info.dtype, info.shape) for name, info in infos.items()}


def _modules(weights: Weights) -> Mapping[str, Shape]:
    modules: dict[str, Shape] = {}
    for name, (dtype, shape) in weights.items():
        path, _, parameter = name.rpartition(".")
        if parameter in _PACKED or (parameter == "weight" and dtype in _PACKED_DTYPES):
            modules[path] = None
        elif parameter == "weight" and len(shape) == 2:
            modules[path] = (shape[0], shape[1])
    if "lm_head" not in modules:
        # Tied embeddings are stored once; an adapter may still change the output side.
        tied = [shape for path, shape in modules.items() if path.endswith("embed_tokens")]
        if tied:
            modules["lm_head"] = tied[0]
    return MappingProxyType(dict(sorted(modules.items())))
