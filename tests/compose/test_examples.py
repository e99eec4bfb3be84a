"""Examples: what is read, and what is refused with the line that is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from loraloom.compose.errors import InvalidExamples
from loraloom.compose.examples import MAX_CHOICES, Example, Turn, digest, inline, read_examples

PAIR = {"prompt": "Spell 4", "completion": "four"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Spell 4"},
        {"role": "assistant", "content": "four"},
    ]
}


def test_pairs_and_conversations() -> None:
    pair, chat, choice = read_examples((PAIR, CHAT, {**PAIR, "choices": ["four", "five"]}))
    assert pair == Example((Turn("user", "Spell 4"),), "four")
    assert chat == Example((Turn("system", "Be brief."), Turn("user", "Spell 4")), "four")
    assert choice.choices == ("four", "five")
    assert chat.prompt == "Be brief.\nSpell 4"


def test_a_file_has_one_a_line_and_may_have_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\n\n{json.dumps(CHAT)}\n\n", encoding="utf-8")
    assert read_examples(path) == read_examples((PAIR, CHAT))


def test_a_line_ends_where_json_lines_end(tmp_path: Path) -> None:
    path, odd = tmp_path / "examples.jsonl", {**PAIR, "prompt": "a\u2028b\x85c"}
    path.write_text(json.dumps(odd, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_examples(path) == read_examples((odd,))


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(InvalidExamples, match="example 1 has what is no text"):
        read_examples(({**PAIR, "prompt": "a\ud800"},))


def test_the_line_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\n\n{{\n", encoding="utf-8")
    with pytest.raises(InvalidExamples, match=r"examples.jsonl, line 3 is no JSON"):
        read_examples(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "is no JSON object"),
        ({"prompt": "a"}, 'needs the texts "prompt" and "completion"'),
        ({"prompt": "a", "completion": 4}, 'needs the texts "prompt" and "completion"'),
        ({"prompt": " ", "completion": "b"}, "empty prompt"),
        ({"prompt": "a", "completion": " "}, "empty answer"),
        ({**PAIR, "answer": "x"}, "has answer: there are only prompt, completion, messages and choices"),
        ({"messages": [{"role": "user", "content": "a"}]}, "two or more"),
        ({**CHAT, "prompt": "a"}, "without prompt"),
        ({"messages": "text"}, "two or more"),
        ({"messages": CHAT["messages"][:2]}, "its role is assistant"),
        ({"messages": [{"role": "bot", "content": "a"}, CHAT["messages"][2]]}, "the role one of system, user"),
        ({"messages": [{"role": "user"}, CHAT["messages"][2]]}, "a message is"),
        ({"messages": ["a", "b"]}, "a message is"),
        ({**PAIR, "choices": "four"}, "is a list of texts"),
        ({**PAIR, "choices": ["four"]}, "two or more different texts"),
        ({**PAIR, "choices": ["five", "six"]}, "the completion is one of them"),
        ({**PAIR, "choices": ["four", "four"]}, "two or more different texts"),
        ({**PAIR, "choices": ["four", *map(str, range(MAX_CHOICES))]}, 'has 101 "choices": give 100 at the most'),
    ],
)
def test_what_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidExamples, match=f"example 2.*{message}"):
        read_examples((PAIR, value))


def test_there_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for source in ((), tmp_path / "empty.jsonl"):
        with pytest.raises(InvalidExamples, match="there are no examples"):
            read_examples(source)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none", tmp_path / "binary"):
        with pytest.raises(InvalidExamples, match="cannot be read as text"):
            read_examples(path)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(InvalidExamples, match="learns from a few examples"):
        read_examples(path)


def test_inline_gives_the_same_example_back() -> None:
    for example in read_examples((PAIR, CHAT, {**CHAT, "choices": ["four", "five"]})):
        assert read_examples((inline(example),)) == (example,)


def test_the_digest_follows_content_and_order() -> None:
    pair, chat = read_examples((PAIR, CHAT))
    assert len({digest(each) for each in ((pair, chat), (chat, pair), (pair,))}) == 3
    assert digest((pair, chat)) == digest(read_examples((PAIR, CHAT)))


def test_case_and_white_space_make_no_other_prompt() -> None:
    one, other = read_examples(({**PAIR, "prompt": "Spell  4\n"}, {**PAIR, "prompt": "spell 4"}))
    assert one.key == other.key


def test_as_many_choices_as_there_may_be() -> None:
    (example,) = read_examples(({**PAIR, "choices": ["four", *map(str, range(MAX_CHOICES - 1))]},))
    assert len(example.choices) == MAX_CHOICES
