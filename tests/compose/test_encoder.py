"""From examples to token ids."""

from pathlib import Path

import pytest

from loraloom.compose.encoder import Encoder, encoder_of
from loraloom.compose.errors import InvalidExamples, InvalidSpec
from loraloom.compose.examples import Example, Turn

SPELL = Example((Turn("user", "Spell 4"),), "four")
SHOT = Example((Turn("user", "Spell 5"),), "five")


@pytest.fixture(scope="module")
def chat(demo_model: Path) -> Encoder:
    return encoder_of(str(demo_model), "auto")


@pytest.fixture(scope="module")
def plain(tiny_base: Path) -> Encoder:
    return encoder_of(str(tiny_base), "auto")


def test_a_conversation_reads_as_the_template_writes_it(chat: Encoder, demo_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_model)
    messages = [{"role": "user", "content": "Spell 4"}, {"role": "assistant", "content": "four"}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    row = chat.row(SPELL, SPELL.answer)
    assert tokenizer.decode([*row.prompt, *row.answer]) == whole.rstrip("\n")
    assert tokenizer.decode(row.answer) == "four<|im_end|>"
    assert chat.text(row.answer) == "four"
    assert chat.context == 8192


def test_solved_examples_come_before_as_turns(chat: Encoder) -> None:
    alone, shown = chat.row(SPELL, "four"), chat.row(SPELL, "four", [SHOT])
    assert shown.answer == alone.answer
    text = chat.text(shown.prompt)
    assert text.index("Spell 5") < text.index("five") < text.index("Spell 4")


def test_a_system_message_is_said_once(chat: Encoder) -> None:
    system = Turn("system", "Be brief.")
    spell, shot = (Example((system, *each.turns), each.answer) for each in (SPELL, SHOT))
    assert chat.text(chat.prompt(spell, [shot])).count("Be brief.") == 1
    assert chat.text(chat.prompt(spell)).count("Be brief.") == 1


def test_plain_text_where_there_is_no_template(plain: Encoder, tiny_base: Path, demo_model: Path) -> None:
    from transformers import AutoTokenizer

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text).input_ids)

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    row = plain.row(Example((Turn("user", "select the"),), " date"), " date")
    assert row.prompt == ids("select the")
    assert row.answer == (*ids(" date"), tokenizer.eos_token_id)
    shown = plain.prompt(Example((Turn("user", "where"),), "known"), [Example((Turn("user", "is"),), "name")])
    assert tuple(shown) == ids("isname\n\nwhere")
    assert encoder_of(str(demo_model), "plain").prompt(SPELL) != encoder_of(str(demo_model), "chat").prompt(SPELL)


def test_what_the_context_does_not_hold_is_refused(plain: Encoder) -> None:
    long = Example((Turn("user", "select " * 100),), "the " * 100)
    with pytest.raises(InvalidExamples, match=r"has \d+ tokens with its answer, and the model's context is 128"):
        plain.row(long, long.answer)


def test_what_has_no_tokens_is_refused(plain: Encoder) -> None:
    with pytest.raises(InvalidExamples, match="no tokens"):
        plain.row(Example((Turn("user", ""),), "the"), "the")


def test_what_the_template_refuses_is_told(chat: Encoder) -> None:
    chat._tokenizer.chat_template, kept = "{{ raise_exception('no tools here') }}", chat._tokenizer.chat_template
    try:
        with pytest.raises(InvalidExamples, match="no tools here"):
            chat.row(SPELL, "four")
    finally:
        chat._tokenizer.chat_template = kept


def test_a_base_without_them_is_told(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="cannot be read"):
        encoder_of(str(tmp_path), "auto")
    with pytest.raises(InvalidSpec, match="has no chat template: use `template: plain`"):
        encoder_of(str(tiny_base), "chat")


def test_different_system_messages_do_not_go_into_one_conversation(chat: Encoder) -> None:
    brief = Example((Turn("system", "Be brief."), *SHOT.turns), SHOT.answer)
    with pytest.raises(InvalidExamples, match="different system messages"):
        chat.row(SPELL, "four", [brief])


def test_a_smaller_context(chat: Encoder) -> None:
    row = chat.row(SPELL, "four")
    assert chat.within(len(row)).row(SPELL, "four") == row
    with pytest.raises(InvalidExamples, match="the model's context is"):
        chat.within(len(row) - 1).row(SPELL, "four")


def test_the_answers_to_an_example_share_its_prompt(chat: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt with many choices is tokenised, and held, once."""
    expected = tuple(chat.row(SPELL, answer) for answer in ("four", "five"))
    asked, prompt = [], chat.prompt
    monkeypatch.setattr(chat, "prompt", lambda *given: asked.append(given) or prompt(*given))
    rows = chat.rows(SPELL, ("four", "five"))
    assert rows == expected
    assert rows[0].prompt is rows[1].prompt
    assert len(asked) == 1
