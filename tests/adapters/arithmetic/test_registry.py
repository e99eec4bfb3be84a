import inspect
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.arithmetic.exact import exact
from loraloom.adapters.arithmetic.factors import Factors, Term
from loraloom.adapters.arithmetic.registry import FUNCTIONS, combine
from loraloom.adapters.arithmetic.svd import svd
from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.methods import METHODS, Method
from tests.adapters.arithmetic.drawn import factors, mixtures, seeded

ALL = (
    Method("exact"),
    Method("lorahub"),
    Method("svd", (("rank", 3),)),
    Method("ties", (("density", 0.5),)),
    Method("dare_linear", (("density", 0.5),)),
    Method("dare_ties", (("density", 0.5), ("rank", 2), ("seed", 1))),
)
each_method = pytest.mark.parametrize("method", ALL, ids=str)
DARE = Method("dare_linear", (("density", 0.5), ("seed", 3)))


def test_every_method_of_the_grammar_has_a_function_with_its_parameters() -> None:
    assert FUNCTIONS.keys() == METHODS.keys() == {method.name for method in ALL}
    for name, function in FUNCTIONS.items():
        _, *parameters = inspect.signature(function).parameters.values()
        assert {each.name for each in parameters} == METHODS[name].keys()
        for each in parameters:
            assert each.kind is each.KEYWORD_ONLY
            assert (each.default is each.empty) == METHODS[name][each.name].required


@seeded
@given(st.sampled_from(ALL), mixtures(one_rank=True))
def test_every_method_gives_a_finite_update_of_the_modules_shape(method: Method, terms: list[Term]) -> None:
    mixed = combine(method, terms, "q_proj")
    assert (mixed.factors.b.shape[0], mixed.factors.a.shape[1]) == (
        terms[0].factors.b.shape[0],
        terms[0].factors.a.shape[1],
    )
    assert mixed.factors.rank >= 1
    assert math.isfinite(mixed.discarded)
    for factor in (mixed.factors.a, mixed.factors.b):
        assert factor.isfinite().all()
        assert factor.is_contiguous(), "it is written to a file as it lies in memory"


def test_the_function_gets_the_parameters() -> None:
    terms = [Term(weight, factors(4, (9, 8), 0)) for weight in (0.6, 0.2)]
    assert torch.equal(combine(Method("exact"), terms, "").factors.b, exact(terms).factors.b)
    assert torch.equal(combine(Method("svd", (("rank", 2),)), terms, "").factors.b, svd(terms, rank=2).factors.b)


@each_method
@pytest.mark.parametrize("weight", [1e300, -1e300, 1e60])
def test_weights_that_leave_float32_are_refused(method: Method, weight: float) -> None:
    terms = [Term(weight, factors(4, (9, 8), 0)), Term(1.0, factors(4, (9, 8), 1))]
    with pytest.raises(InvalidMixture, match=r"layers\.0\.q_proj.*smaller weights"):
        combine(method, terms, "layers.0.q_proj")


@pytest.mark.parametrize("method", [Method("exact"), Method("lorahub")], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_of_either_sign_are_looked_at(method: Method, sign: int) -> None:
    with pytest.raises(InvalidMixture):
        combine(method, [Term(1e300, Factors(torch.ones(4, 8), sign * torch.ones(9, 4)))], "q_proj")


@each_method
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_method_hides_what_is_not_finite(method: Method, number: float) -> None:
    b = torch.ones(9, 4)
    b[3, 2] = number
    with pytest.raises(InvalidMixture):
        combine(method, [Term(1.0, Factors(torch.ones(4, 8), b))], "q_proj")


@each_method
def test_numbers_near_the_end_of_half_precision_are_not_refused(method: Method) -> None:
    given = Factors(torch.full((4, 8), 6e4).half(), torch.full((9, 4), -6e4).half())
    assert combine(method, [Term(1.0, given)], "q_proj").factors.b.isfinite().all()


def test_ranks_that_a_method_does_not_take_are_refused() -> None:
    with pytest.raises(InvalidMixture, match="exact"):
        combine(Method("lorahub"), [Term(1.0, factors(rank, (6, 4), 0)) for rank in (1, 2)], "q_proj")


@pytest.mark.parametrize("terms", [[], [Term(1.0, factors(2, shape, 0)) for shape in ((6, 4), (6, 5))]])
def test_terms_are_of_one_module(terms: list[Term]) -> None:
    with pytest.raises(AssertionError):
        combine(Method("exact"), terms, "q_proj")


def test_each_module_has_a_mask_of_its_own_and_keeps_it() -> None:
    terms = [Term(1.0, factors(2, (9, 8), 0))]
    first, again, other = (combine(DARE, terms, module).factors.b for module in ("q_proj", "q_proj", "k_proj"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_mask_is_the_same_in_another_process() -> None:
    program = (
        "from tests.adapters.arithmetic.test_registry import *;"
        "print(combine(DARE, [Term(1.0, factors(2, (9, 8), 0))], 'q_proj').factors.b.tolist())"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(combine(DARE, [Term(1.0, factors(2, (9, 8), 0))], "q_proj").factors.b.tolist())
