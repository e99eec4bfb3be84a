"""Secrets: how they look, what is kept of them, and what is never shown."""

import re

import pytest

from loraloom.server.access.secret import NOBODY, Stored, Token


def test_a_token_is_what_the_documentation_tells_scanners_to_look_for() -> None:
    tokens = [Token.new() for _ in range(50)]
    assert all(re.fullmatch(r"ll_[0-9a-z]{12}_[0-9A-Za-z]{43}", token.text) for token in tokens)
    assert len({token.id for token in tokens} | {token.secret for token in tokens}) == 100
    assert 62**43 > 2**256


def test_a_token_reads_back() -> None:
    token = Token.new()
    assert Token.parse(token.text) == token


@pytest.mark.parametrize(
    "change", [str.upper, str.strip, lambda text: text[:-1], lambda text: f"{text}\n", "é".__add__]
)
def test_what_does_not_look_like_a_token_is_none(change: object) -> None:
    text = Token.new().text
    assert callable(change)
    changed = change(text)
    assert (Token.parse(changed) is None) == (changed != text)


def test_only_the_secret_itself_passes() -> None:
    token, other = Token.new(), Token.new()
    check = Stored.of(token).check()
    assert check.passes(token.secret)
    assert not check.passes(other.secret)
    assert not NOBODY.passes(token.secret)


def test_the_same_secret_is_kept_differently_each_time() -> None:
    token = Token.new()
    first, second = Stored.of(token), Stored.of(token)
    assert first.digest != second.digest
    assert len(bytes.fromhex(first.salt)) == 16


def test_no_secret_and_no_hash_is_in_a_repr() -> None:
    token = Token.new()
    stored = Stored.of(token)
    shown = f"{token!r} {token} {stored!r} {stored} {stored.check()!r}"
    assert not any(hidden in shown for hidden in (token.secret, stored.salt, stored.digest, "b'", 'b"'))
    assert token.id in shown
