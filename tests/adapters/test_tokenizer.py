import json
from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.errors import InvalidBase
from loraloom.adapters.tokenizer import tokenizer_digest

BPE = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": []}
UNIGRAM = {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": []}


def _digest(folder: Path, tokenizer: Any) -> str | None:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tokenizer_digest(folder)


def _bpe(**model: Any) -> dict[str, Any]:
    return {**BPE, "model": {**BPE["model"], **model}}


@pytest.mark.parametrize(
    "same",
    [
        _bpe(vocab={"ab": 2, "b": 1, "a": 0}),
        _bpe(merges=[["a", "b"]]),
        _bpe(dropout=0.1),
        {**BPE, "post_processor": {"type": "ByteLevel"}, "truncation": None},
        {**_bpe(vocab={"a": 0, "b": 1}), "added_tokens": [{"id": 2, "content": "ab", "special": True}]},
    ],
)
def test_the_same_ids_and_merges_have_one_digest(tmp_path: Path, same: dict[str, Any]) -> None:
    assert _digest(tmp_path, same) == _digest(tmp_path, BPE)


@pytest.mark.parametrize(
    "other",
    [
        _bpe(vocab={"a": 1, "b": 0, "ab": 2}),
        _bpe(merges=[]),
        {**BPE, "added_tokens": [{"id": 3, "content": "</s>"}]},
        UNIGRAM,
    ],
)
def test_other_ids_or_merges_have_another(tmp_path: Path, other: dict[str, Any]) -> None:
    assert _digest(tmp_path, other) != _digest(tmp_path, BPE)


def test_the_scores_of_a_unigram_model_count(tmp_path: Path) -> None:
    other = {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -3.0]]}}
    assert _digest(tmp_path, UNIGRAM) != _digest(tmp_path, other)


def test_real_tokenizers_with_and_without_their_padding_settings(tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((tiny_base / "tokenizer.json").read_text())
    tokenizer["padding"] = {"strategy": {"Fixed": 8}}
    digest = tokenizer_digest(tiny_base)
    assert digest is not None
    assert len(digest) == 64
    assert _digest(tmp_path, tokenizer) == digest


def test_a_sentencepiece_file_counts_where_there_is_nothing_else(tmp_path: Path) -> None:
    assert tokenizer_digest(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(b"one")
    first = tokenizer_digest(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"two")
    assert first != tokenizer_digest(tmp_path)
    assert _digest(tmp_path, BPE) not in (first, tokenizer_digest(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"model": {"vocab": 1}}', '{"model": {"vocab": [1]}}', "[" * 100_000]
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InvalidBase, match="damaged"):
        tokenizer_digest(tmp_path)
