"""Facts as lines for people."""

import pytest

from loraloom.server.cli.fact_text import fact_text

UPDATE = {"modules": 210, "rank": 8, "norm": 3.21, "min": 0.0111, "median": 0.2, "max": 0.42, "zero": []}
CONVERSION = {
    "kind": "DoRA",
    "exact": False,
    "rank": 16,
    "relative_error": 0.0123,
    "kl": 0.00312,
    "top1": 0.9921,
    "tokens": 512,
}
EFFECT = {"max_logprob_change": 4.21, "mean_logprob_change": 0.312, "tokens": 24, "prompt": 'Say "ü"'}


@pytest.mark.parametrize(
    ("kind", "fact", "text"),
    [
        ("update", UPDATE, "210 modules, rank 8, |dW| 3.2 (0.011 to 0.42 a module)"),
        (
            "update",
            {**UPDATE, "min": 0.0, "zero": ["a.b", "a.c"]},
            "210 modules, rank 8, |dW| 3.2 (0 to 0.42 a module), 2 of them zero: a.b, a.c",
        ),
        (
            "update",
            {**UPDATE, "zero": list("abcd")},
            "210 modules, rank 8, |dW| 3.2 (0.011 to 0.42 a module), 4 of them zero: a, b, c, …",
        ),
        (
            "conversion",
            CONVERSION,
            "DoRA, approximated at rank 16, relative error 0.012, KL 0.0031 nats, "
            "same most probable token in 99.2% of 512",
        ),
        (
            "conversion",
            {**CONVERSION, "exact": True, "relative_error": 0.0, "kl": None, "top1": None},
            "DoRA, exact at rank 16, relative error 0",
        ),
        (
            "effect",
            EFFECT,
            'log-probabilities move by 0.31 nats on average, by 4.2 at most, over 24 tokens of "Say \\"ü\\""',
        ),
        (
            "effect",
            {**EFFECT, "max_logprob_change": 1e-5, "mean_logprob_change": 0.0},
            "WARNING, it changes next to nothing: log-probabilities move by 0 nats on average, by 1e-05 at most, "
            'over 24 tokens of "Say \\"ü\\""',
        ),
        ("other", {"a": "ü"}, '{"a": "ü"}'),
        ("update", {"modules": 3}, '{"modules": 3}'),
        ("effect", {**EFFECT, "max_logprob_change": None}, None),
    ],
)
def test_lines(kind: str, fact: dict[str, object], text: str | None) -> None:
    assert fact_text(kind, fact) == text or text is None and fact_text(kind, fact).startswith("{")
