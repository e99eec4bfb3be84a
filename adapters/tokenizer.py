"""What identifies a tokenizer: which id each token has, and how tokens are merged."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loraloom.adapters.errors import InvalidBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
"""The files that are looked at, the first that exists counts."""


@dataclass(frozen=True)
class TokenMap:
    """What a tokenizer's file says.

    Attributes:
        digest: 64 hex digits that two tokenizers share when they turn the same pieces into the same ids.
        ids: the id of each token, added ones included; None where only a `tokenizer.model` is there, which tells it to
            sentencepiece alone.
    """

    digest: str
    ids: Mapping[str, int] | None


def tokenizer_digest(folder: Path) -> str | None:
    """The digest of a model's tokenizer, or None without one.

    Raises:
        InvalidBase: the file is damaged.
    """
    tokens = read_token_map(folder)
    return None if tokens is None else tokens.digest


def read_token_map(folder: Path) -> TokenMap | None:
    """A model's tokenizer, or None without one.

    Of a `tokenizer.json` the digest covers the map from tokens to ids, added tokens included, and the merges or scores,
    and leaves out formatting and post-processing; of a `tokenizer.model` it covers the file.

    Raises:
        InvalidBase: the file is damaged.
    """
    json_file, model_file = (folder / name for name in TOKENIZER_FILES)
    if json_file.is_file():
        try:
            return _token_map(json.loads(json_file.read_bytes()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidBase(f"{json_file} is damaged: download the model again") from error
    if model_file.is_file():
        return TokenMap(hashlib.sha256(model_file.read_bytes()).hexdigest(), ids=None)
    return None


def _token_map(tokenizer: Mapping[str, Any]) -> TokenMap:
    model = tokenizer["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        # Unigram: the position is the id, and the score decides how text is split.
        ids = {token: number for number, (token, _) in enumerate(vocabulary)}
        scores = [score for _, score in vocabulary]
    else:
        ids, scores = dict(vocabulary), []
    ids |= {added["content"]: added["id"] for added in tokenizer.get("added_tokens") or ()}
    # Older files write a merge as "a b", newer ones as ["a", "b"].
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or ()]
    text = json.dumps([sorted(ids.items()), scores, merges], separators=(",", ":"))
    return TokenMap(hashlib.sha256(text.encode()).hexdigest(), MappingProxyType(ids))
