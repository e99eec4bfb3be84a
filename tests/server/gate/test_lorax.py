"""LoRAX's field for mixtures."""

from typing import Any

import pytest

from loraloom.adapters.errors import InvalidName
from loraloom.server.errors import InvalidBody
from loraloom.server.gate.lorax import merged_adapters


@pytest.mark.parametrize(
    ("field", "mixture"),
    [
        ({"ids": ["a", "org/b@2"], "weights": [0.25, -1]}, "0.25*a+-1*org/b@2"),
        ({"ids": ["a", "b"]}, "1*a+1*b"),
        ({"ids": ["a", "b"], "weights": None, "merge_strategy": "linear", "density": 0.2}, "1*a+1*b"),
        ({"ids": ["a"], "weights": [2], "majority_sign_method": "total"}, "2*a"),
        ({"ids": ["a", "b"], "merge_strategy": "ties", "density": 0.2}, "ties(density=0.2):1*a+1*b"),
        ({"ids": ["a", "b"], "merge_strategy": "dare_ties"}, "dare_ties(density=0.5):1*a+1*b"),
    ],
)
def test_what_it_asks_for(field: dict[str, Any], mixture: str) -> None:
    assert str(merged_adapters(field)) == mixture


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ([], "merged_adapters: "),
        ({}, "merged_adapters.ids: "),
        ({"ids": []}, "merged_adapters.ids: "),
        ({"ids": "a"}, "merged_adapters.ids: "),
        ({"ids": ["a"] * 2049}, "merged_adapters.ids: .*at most 2048"),
        ({"ids": ["a"], "weights": [1] * 2049}, "merged_adapters.weights: .*at most 2048"),
        ({"ids": ["a", 1]}, r"merged_adapters.ids.1: "),
        ({"ids": ["a"], "weights": ["0.5"]}, r"merged_adapters.weights.0: "),
        ({"ids": ["a"], "weights": [True]}, r"merged_adapters.weights.0: "),
        ({"ids": ["a"], "weights": [float("inf")]}, r"merged_adapters.weights.0: "),
        ({"ids": ["a"], "weights": [1, 2]}, "1 ids and 2 weights"),
        ({"ids": ["a"], "merge_strategy": "magic"}, "merged_adapters.merge_strategy: .*'linear'"),
        ({"ids": ["a"], "merge_method": "linear"}, "merged_adapters.merge_method: "),
    ],
)
def test_another_form(field: object, reason: str) -> None:
    with pytest.raises(InvalidBody, match=reason) as refusal:
        merged_adapters(field)
    assert refusal.value.param == "merged_adapters"


@pytest.mark.parametrize(
    "field", [{"ids": ["a b"]}, {"ids": ["a+b"]}, {"ids": ["a"], "merge_strategy": "ties", "density": 2}]
)
def test_what_does_not_follow_the_grammar(field: object) -> None:
    with pytest.raises(InvalidName):
        merged_adapters(field)
