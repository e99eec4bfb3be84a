"""Patterns match as peft matches them, and take neither all time nor all memory."""

import re
import time

import pytest

from loraloom.adapters.errors import InvalidAdapter
from loraloom.adapters.patterns import MAX_PATTERN, MAX_REPEATS, Patterns, compiled, matches

Q = "model.layers.0.self_attn.q_proj"


def found(pattern: str, path: str = Q) -> bool:
    return Patterns({pattern: True}, time.monotonic() + 5).get(path, False)


@pytest.mark.parametrize(
    "pattern",
    [
        *("q_proj", r"layers\.[0-9]{1,3}\..*q_proj", "(?:k|q)_proj", "(?!k).*_proj", "(?P<a>q)_proj", "(?i:Q_PROJ)"),
        *(f"^{re.escape(Q)}", "q_pro{1}j", "(.*_){1,2}proj", "x|q_proj", "[^(]*q_proj", "(?<=self_attn.)q_proj"),
    ],
)
def test_what_peft_matches(pattern: str) -> None:
    assert re.match(rf"(.*\.)?({pattern})$", Q)
    assert found(pattern)


def test_the_first_that_matches_counts() -> None:
    values = Patterns({"k_proj": 1, "q_proj": 2, Q: 3}, time.monotonic() + 5)
    assert [values.get(path, 0) for path in (Q, "a.k_proj", "k_proj.a")] == [2, 1, 0]


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?R)", "(?1)", "(?:(?R)|a)*", "(?V0)a(?V1)", "(?i)a", "(?e)a", "(?:a){e}", "q_proj(", "[", "a{3,2}", "a{"),
        *("(" * 400 + ")" * 400, "a" * (MAX_PATTERN + 1), "(a{1000000}){1000000}", "((.*){5}){1000}", r"\L<a>"),
    ],
)
def test_what_is_refused(pattern: str) -> None:
    """Each of them is no pattern of peft's, or took seconds or gigabytes, or ended in another error."""
    with pytest.raises(InvalidAdapter, match="adapter_config.json: the pattern"):
        found(pattern)


def test_counts_up_to_the_limit() -> None:
    assert found(f"(?:q_proj|a{{{MAX_REPEATS}}})")
    with pytest.raises(InvalidAdapter, match="more than 1000 times"):
        found(f"(?:q_proj|a{{{MAX_REPEATS}}}b{{2}})")


def test_a_whole_path_is_matched_without_a_tail() -> None:
    pattern, end = compiled("self_attn|.*q_proj"), time.monotonic() + 5
    assert [matches(pattern, path, end) for path in (Q, "self_attn", "model.self_attn", "self_attn\n")] == [
        *(True, True, False, False)
    ]


def test_many_patterns_have_one_deadline() -> None:
    """Each of them alone is quick."""
    values = Patterns({f"a{number}": number for number in range(1000)}, time.monotonic() - 1)
    with pytest.raises(InvalidAdapter, match="too long"):
        values.get(Q, 0)
