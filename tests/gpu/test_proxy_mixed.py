"""Proxy-tuning on the GPU answers as three models in float32 do, as far as its precision goes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.gpu.models import SMALL
from tests.gpu.proxy_cases import Answer, Case, Judgement
from tests.gpu.proxy_mixed import CPU, CUDA, LITTLE, Comparison, compared, outcome

ONE, OTHER = Case((1,)), Case((2,), "one", 2.0)
TOLERATED = CUDA[0].tolerance


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> list[Comparison]:
    return compared(CUDA, tmp_path_factory.mktemp("proxy"))


@pytest.mark.gpu
@pytest.mark.parametrize("number", range(len(CUDA)), ids=["float16", "bfloat16", "float16, eager"])
def test_a_mixed_batch_answers_as_three_models(comparisons: list[Comparison], number: int) -> None:
    assert not comparisons[number].wrong


@pytest.mark.gpu
def test_the_answers_differ_so_that_equality_means_something(comparisons: list[Comparison]) -> None:
    for comparison in comparisons:
        assert comparison.different > len(comparison.answers) / 2


def comparison(one: float, other: float) -> Comparison:
    """Two requests, of which each has a token that is off by so much."""
    answers = {ONE: Answer((1, 2), (-1.0, -1.0)), OTHER: Answer((3, 4), (-1.0, -1.0))}
    judgements = {ONE: Judgement((0.0, one), (0.0, 0.0)), OTHER: Judgement((0.0, 0.0), (other, 0.0))}
    return Comparison(CUDA[0], answers, judgements)


def test_the_strength_widens_what_is_tolerated() -> None:
    assert comparison(0.9 * TOLERATED, 2.9 * TOLERATED).wrong == []
    assert comparison(1.1 * TOLERATED, 0.0).wrong == [ONE]
    assert comparison(0.0, 3.1 * TOLERATED).wrong == [OTHER]


def test_the_goal_is_that_none_is_wrong() -> None:
    made = outcome([comparison(0.0, 0.0), replace(comparison(1.0, 0.0), precision=CPU[0])])
    assert [goal.met for goal in made.goals] == [True, False]
    assert [row[0] for row in made.table.rows] == ["float16", "float32"]
    results: Any = made.results
    assert (results["float16"]["tokens turned"], results["float32"]["tokens turned"]) == (0, 1)


def test_the_small_model_is_of_other_sizes_and_the_same_vocabulary() -> None:
    ours, theirs = vars(SMALL), vars(LITTLE)
    assert {name for name in ours if ours[name] == theirs[name]} == {
        "vocab_size",
        "max_position_embeddings",
        "tie_word_embeddings",
    }
