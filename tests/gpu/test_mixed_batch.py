"""One mixed batch on the GPU answers each request as alone, and as transformers with peft does."""

import pytest

from tests.e2e.reference import Reference
from tests.gpu.mixed_batch import CPU, CUDA, RANKS, Case, Comparison, cases, compared, outcome

ONE, OTHER = Case(None, "one"), Case("a8", "other")
REFERENCE = {ONE: Reference((1, 2), (0.5, 0.001)), OTHER: Reference((3, 4), (0.5, 0.5))}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compared(CUDA, tmp_path_factory.mktemp("mixed"))


@pytest.mark.gpu
def test_a_mixed_batch_answers_as_alone_and_as_transformers_and_peft(comparison: Comparison) -> None:
    assert not comparison.wrong


@pytest.mark.gpu
def test_most_answers_are_whole_so_that_near_ties_do_not_hide_what_is_wrong(comparison: Comparison) -> None:
    assert comparison.whole > len(cases()) / 2
    assert comparison.answers > len(cases()) / 2


def test_the_base_is_among_the_adapters() -> None:
    assert {case.adapter for case in cases()} == {None, *RANKS}
    assert len(set(cases())) == len(cases()) == 21


def test_only_a_near_tie_may_turn_an_answer() -> None:
    right = {case: expected.tokens for case, expected in REFERENCE.items()}
    tied, wrong = {**right, ONE: (1, 9)}, {**right, OTHER: (3, 9)}
    assert Comparison(CPU, right, right, REFERENCE).whole == 2
    turned = Comparison(CPU, tied, right, REFERENCE)
    assert (turned.wrong, turned.whole, turned.turned) == ([], 1, [ONE])
    assert Comparison(CPU, right, wrong, REFERENCE).wrong == [OTHER]
    assert Comparison(CPU, wrong, right, REFERENCE).wrong == [OTHER]
    assert [goal.met for goal in outcome(Comparison(CPU, right, wrong, REFERENCE)).goals] == [False]
