"""Comparing tokenizers by their files."""

import json
from pathlib import Path
from typing import Any

import pytest

from loraloom.adapters.errors import InvalidBase
from loraloom.server.proxy.fitting.tokens import (
    Difference,
    Tokens,
    differences,
    mismatch,
    read_tokens,
    special_differences,
)
from tests.server.proxy.configurations import SPECIAL, TOKENIZER


def tokens(folder: Path, tokenizer: Any = TOKENIZER, special: Any = SPECIAL) -> Tokens:
    folder.mkdir(exist_ok=True)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if special is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return read_tokens(folder)


def with_added(**ids: int) -> Any:
    return {**TOKENIZER, "added_tokens": [{"content": token, "id": number} for token, number in ids.items()]}


def test_what_is_read(tmp_path: Path) -> None:
    found = tokens(tmp_path, with_added(x=3))
    assert found.ids == {"a": 0, "b": 1, "ab": 2, "x": 3}
    assert found.special == {"bos": "<s>", "eos": "</s>"}
    assert found.chat_template == "{{ messages }}"


def test_a_tokenizer_that_transformers_wrote(tiny_base: Path) -> None:
    found = read_tokens(tiny_base)
    assert found.ids is not None
    assert (len(found.ids), found.special) == (55, {"bos": "<s>", "eos": "</s>", "unk": "<unk>"})
    assert mismatch(found, found) is None


def test_tokens_that_only_the_configuration_adds(tmp_path: Path) -> None:
    added = {"added_tokens_decoder": {"3": {"content": "<pad>"}, "0": {"content": "a"}}}
    plain, more = tokens(tmp_path / "plain"), tokens(tmp_path / "more", special=added)
    assert more.ids is not None
    assert more.ids["<pad>"] == 3
    assert "'<pad>': no id, 3 in the small model" in (mismatch(plain, more) or "")
    assert mismatch(tokens(tmp_path / "file", with_added(**{"<pad>": 3})), more) is None


def test_differences_come_in_the_order_of_the_ids() -> None:
    assert differences({"a": 5, "b": 1, "c": 2}, {"b": 3, "c": 2, "d": 0}) == [
        Difference("d", None, 0),
        Difference("b", 1, 3),
        Difference("a", 5, None),
    ]


def test_the_first_few_are_told(tmp_path: Path) -> None:
    plain = tokens(tmp_path / "plain")
    assert mismatch(plain, tokens(tmp_path / "one", with_added(x=3))) == (
        "the tokenizers differ in 1 token ('x': no id, 3 in the small model): take a small model that was trained with "
        "the large one's tokenizer"
    )
    told = mismatch(tokens(tmp_path / "several", with_added(w=9, x=8, y=7, z=6)), plain) or ""
    assert "differ in 4 tokens ('z': 6, no id in the small model; 'y': 7, " in told
    assert "; …)" in told
    assert "'w'" not in told


def test_sentencepiece_files_are_compared_as_wholes(tmp_path: Path) -> None:
    found = []
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.model").write_bytes(content)
        found.append(tokens(tmp_path / name, None))
    assert mismatch(found[0], found[1]) is None
    assert "cannot be compared" in (mismatch(found[0], found[2]) or "")
    assert "cannot be compared" in (mismatch(found[0], tokens(tmp_path / "json")) or "")


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    there, none = tokens(tmp_path / "there"), tokens(tmp_path / "none", None)
    assert "the small model has no tokenizer.json" in (mismatch(there, none) or "")
    assert "the large model has no tokenizer.json" in (mismatch(none, there) or "")


def test_special_tokens_are_compared_where_both_are_told(tmp_path: Path) -> None:
    base = tokens(tmp_path / "base", special={"bos_token": "<s>", "eos_token": "</s>", "pad_token": None})
    chat = tokens(tmp_path / "chat", special={"eos_token": {"content": "<end>"}, "pad_token": "<pad>"})
    assert list(special_differences(base, chat)) == ["eos: '</s>', '<end>' in the small model"]


def test_special_tokens_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<old>"}))
    assert tokens(tmp_path, special={"bos_token": "<s>"}).special == {"eos": "</s>", "bos": "<s>"}


def test_where_chat_templates_are(tmp_path: Path) -> None:
    assert tokens(tmp_path, special=None).chat_template is None
    several = [{"name": "rag", "template": "{{ r }}"}, {"name": "default", "template": "{{ a }}"}]
    for written in (several, {each["name"]: each["template"] for each in several}):
        found = tokens(tmp_path, special={"chat_template": written})
        assert (found.chat_template, found.templates) == ("{{ a }}", ())
    found = tokens(tmp_path, special={"chat_template": [{"name": "rag", "template": "r"}]})
    assert (found.chat_template, found.templates) == (None, ("rag",))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "{{ b }}"}))
    assert read_tokens(tmp_path).chat_template == "{{ b }}"
    (tmp_path / "chat_template.jinja").write_text("{{ c }}")
    assert read_tokens(tmp_path).chat_template == "{{ c }}"


@pytest.mark.parametrize(
    "special", ["text", {"added_tokens_decoder": {"x": {"content": "a"}}}, {"chat_template": [{"name": "a"}]}]
)
def test_a_damaged_configuration(tmp_path: Path, special: Any) -> None:
    with pytest.raises(InvalidBase, match=r"tokenizer_config\.json is damaged"):
        tokens(tmp_path, special=special)


def test_ids_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(InvalidBase, match=r"tokenizer\.json is damaged"):
        tokens(tmp_path, {"model": {"vocab": {"a": "0"}}})
