import pytest

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.methods import EXACT, METHODS, Method
from loraloom.adapters.names import parse_method


def test_the_methods_and_what_they_take() -> None:
    assert {name: sorted(parameters) for name, parameters in METHODS.items()} == {
        "exact": [],
        "lorahub": [],
        "svd": ["rank"],
        "ties": ["density", "rank"],
        "dare_linear": ["density", "rank", "seed"],
        "dare_ties": ["density", "rank", "seed"],
    }
    assert Method("exact") == EXACT


def test_the_order_of_parameters_does_not_count() -> None:
    method = parse_method("dare_ties(seed=3,rank=8,density=0.5)")
    assert method == Method("dare_ties", (("density", 0.5), ("rank", 8), ("seed", 3)))
    assert str(method) == "dare_ties(density=0.5,rank=8,seed=3)"


def test_parameters_get_their_types() -> None:
    rank, density = dict(parse_method("svd(rank=1.6e1)").parameters), dict(parse_method("ties(density=1)").parameters)
    assert (type(rank["rank"]), rank["rank"]) == (int, 16)
    assert (type(density["density"]), density["density"]) == (float, 1.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("magic", "only exact, lorahub, svd, ties, dare_linear, dare_ties"),
        ("exact(rank=1)", "exact takes no parameters"),
        ("svd", r"svd needs \(rank="),
        ("ties(rank=4)", r"ties needs \(density="),
        ("ties(density=0.5,seed=1)", "ties takes density, rank"),
        ("svd(rank=0)", "rank is an integer from 1"),
        ("svd(rank=1.5)", "rank is an integer"),
        ("svd(rank=1e300)", "rank is an integer"),
        ("ties(density=0)", "density is a number from 0.001 to 1"),
        ("ties(density=1.1)", "density is a number"),
        ("dare_ties(density=0.5,seed=-1)", "seed is an integer from 0"),
        ("svd(rank=1,rank=2)", "given once"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidName, match=reason):
        parse_method(text)
