"""A model, as far as its small files and the headers of its weights tell: a folder, or an id of the Hub."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters import hub
from loraloom.adapters.errors import InvalidBase
from loraloom.adapters.safetensors_header import BadHeader, read_header
from loraloom.adapters.tokenizer import TOKENIZER_FILES
from loraloom.server.footprint import weight_files
from loraloom.server.proxy.fitting.architecture import Architecture, read_architecture
from loraloom.server.proxy.fitting.tokens import TOKEN_FILES, Tokens, read_tokens

Headers = Mapping[str, tuple[str, Sequence[int]]]
"""The type and shape of each tensor, by its name."""

_SHOWN = 3
_INDEX_FILE = "model.safetensors.index.json"
_SMALL_FILES = ("config.json", _INDEX_FILE, *TOKENIZER_FILES, *TOKEN_FILES)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was looked at.

    Attributes:
        name: what the user calls it.
        architecture: its kind and sizes.
        tokens: its tokenizer.
        shapes: the dimensions of each tensor, by its name; empty where there are no weights as safetensors.
        stored: bytes of these.
    """

    name: str
    architecture: Architecture
    tokens: Tokens
    shapes: Mapping[str, tuple[int, ...]]
    stored: int

    @property
    def parameters(self) -> int:
        """Numbers in all weights, as the headers tell them; by the configuration where they are packed or not there."""
        if not self.shapes or self.architecture.quantization:
            return self.architecture.parameters
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_checkpoint(model: str | Path) -> Checkpoint:
    """Look at a local folder, or at an id of the Hugging Face Hub, whose weights are not downloaded.

    Raises:
        InvalidBase: there is no such model within reach, or its files cannot be read.
    """
    if os.path.isdir(model):  # unlike Path.is_dir, False for a text that can be no path
        return _checkpoint(str(model), Path(model), _headers(Path(model)))
    folder = _from_hub(str(model))
    whole = weight_files(folder) and not _absent(folder)
    return _checkpoint(str(model), folder, _headers(folder) if whole else _headers_from_hub(str(model)))


def _checkpoint(name: str, folder: Path, headers: Headers) -> Checkpoint:
    return Checkpoint(
        name=name,
        architecture=read_architecture(folder),
        tokens=read_tokens(folder),
        shapes={name: tuple(shape) for name, (_, shape) in headers.items()},
        stored=sum(math.prod(shape) * _bits(dtype) for dtype, shape in headers.values()) // 8,
    )


def _from_hub(repo: str) -> Path:
    try:
        return hub.snapshot(repo, None, _SMALL_FILES)
    except Exception as error:
        raise InvalidBase(hub.explain(error, repo)) from error


def _headers_from_hub(repo: str) -> Headers:
    try:
        return hub.weights(repo)
    except Exception:  # not reached, or no safetensors: the configuration tells the sizes nearly as well
        return {}


def _headers(folder: Path) -> Headers:
    if absent := _absent(folder):
        raise InvalidBase(f"{folder} lacks {', '.join(absent[:_SHOWN])}: download the model again")
    files = [path for path in weight_files(folder) if path.suffix == ".safetensors"]
    return {name: tensor for path in files for name, tensor in _header(path).items()}


def _absent(folder: Path) -> list[str]:
    """The files that the index names and the folder lacks; a folder with the index alone is one without weights."""
    index = folder / _INDEX_FILE
    if not index.is_file() or not weight_files(folder):
        return []
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        return sorted(name for name in names if not (folder / Path(name).name).is_file())
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise InvalidBase(f"{index} is damaged: download the model again") from error


def _header(path: Path) -> Headers:
    try:
        with path.open("rb") as file:
            infos = read_header(file, path.stat().st_size)
    except (BadHeader, OSError) as error:
        raise InvalidBase(f"{path} cannot be read: {error}. Download the model again") from error
    return {name: (info.dtype, info.shape) for name, info in infos.items()}


def _bits(dtype: str) -> int:
    """Of one element: 16 of "BF16", 8 of "F8_E4M3" and of "BOOL"."""
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8
