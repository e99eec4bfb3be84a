"""The built-in text is one that every tokenizer can read, of a few hundred tokens."""

from loraloom.adapters.convert.probe_text import PROBE_TEXT


def test_it_is_a_few_hundred_words_of_several_kinds() -> None:
    assert 250 < len(PROBE_TEXT.split()) < 500
    assert "def " in PROBE_TEXT
    assert "SELECT " in PROBE_TEXT
    assert len(set(PROBE_TEXT) & set("0123456789")) == 10
    assert max(map(len, PROBE_TEXT.splitlines())) <= 120
