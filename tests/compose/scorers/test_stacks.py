import pytest
import torch

from loraloom.adapters.arithmetic.exact import exact
from loraloom.adapters.arithmetic.factors import Factors, Term
from loraloom.adapters.arithmetic.lorahub import lorahub
from loraloom.compose.errors import InvalidPool
from loraloom.compose.scorers.stacks import at_least_float32, stacked

CPU = torch.device("cpu")


def factors(seed: int, rank: int = 2, out: int = 5, inputs: int = 4) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rank, inputs, generator=generator), torch.randn(out, rank, generator=generator))


POOL = [{"q": factors(0), "k": factors(1)}, {"q": factors(2)}, {"k": factors(3), "q": factors(4)}]
WEIGHTS = torch.tensor([[0.5, -0.7, 1.2], [0.0, 0.4, 0.0]])


@pytest.mark.parametrize("method", ["exact", "lorahub"])
@pytest.mark.parametrize("path", ["q", "k"])
@pytest.mark.parametrize("candidate", [0, 1])
def test_a_candidates_update_is_what_the_arithmetic_makes(method: str, path: str, candidate: int) -> None:
    update = stacked(POOL, method, CPU, torch.float32)[path].mixed(WEIGHTS)
    assert update is not None
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(9))
    found = update.added(torch.zeros(2, 3, 5), x)[candidate]
    terms = [Term(float(w), each[path]) for w, each in zip(WEIGHTS[candidate], POOL, strict=True) if path in each]
    mixed = {"exact": exact, "lorahub": lorahub}[method](terms).factors
    torch.testing.assert_close(found, x[candidate] @ (mixed.b @ mixed.a).T)


@pytest.mark.parametrize("method", ["exact", "lorahub"])
def test_where_all_weights_are_zero_there_is_nothing_to_add(method: str) -> None:
    stacks = stacked(POOL, method, CPU, torch.float32)
    assert stacks["k"].mixed(torch.tensor([[0.0, 0.8, 0.0], [0.0, -0.1, 0.0]])) is None
    assert stacks["q"].mixed(torch.tensor([[0.0, 0.8, 0.0], [0.0, 0.0, 0.0]])) is not None


@pytest.mark.parametrize("method", ["exact", "lorahub"])
def test_a_stack_knows_its_modules_shape(method: str) -> None:
    assert stacked(POOL, method, CPU, torch.float32)["q"].shape == (5, 4)


@pytest.mark.parametrize("method", ["exact", "lorahub"])
def test_shapes_that_differ_are_refused(method: str) -> None:
    pool = [{"q": factors(0)}, {"q": factors(1, inputs=6)}]
    with pytest.raises(InvalidPool, match=r"q has different shapes .*\(5, 4\) and \(5, 6\)"):
        stacked(pool, method, CPU, torch.float32)


def test_ranks_may_differ_between_modules_of_lorahub_and_not_within_one() -> None:
    assert stacked([{"q": factors(0, rank=2), "k": factors(1, rank=3)}], "lorahub", CPU, torch.float32)
    with pytest.raises(InvalidPool, match="ranks 2, 3"):
        stacked([{"q": factors(0, rank=2)}, {"q": factors(1, rank=3)}], "lorahub", CPU, torch.float32)


def test_sums_are_made_in_float32_at_least() -> None:
    assert at_least_float32(torch.bfloat16) == torch.float32
    assert at_least_float32(torch.float64) == torch.float64
    update = stacked(POOL, "lorahub", CPU, torch.bfloat16)["q"].mixed(WEIGHTS)
    assert update is not None
    x = torch.ones(2, 1, 4, dtype=torch.bfloat16)
    assert update.added(torch.zeros(2, 1, 5, dtype=torch.bfloat16), x).dtype == torch.bfloat16
