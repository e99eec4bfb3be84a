"""From a mixture as it was asked for to one that never changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.errors import AdapterNotFound, InvalidMixture
from loraloom.adapters.methods import EXACT, Method
from loraloom.adapters.mixtures.recipe import MAX_WEIGHT, Recipe, settled
from loraloom.adapters.names import Adapter, Mixture, Term, parse
from loraloom.adapters.store.records import VersionRecord

NAMES = "abcd"


def record(name: str, number: int = 1, rank: int = 2) -> VersionRecord:
    digest = f"{ord(name[0]):02x}{number:02x}" * 16
    return VersionRecord(
        number=number,
        created="2026-01-01T00:00:00Z",
        id="0",
        name=name,
        digest=digest,
        original="0" * 64,
        base=None,
        base_name=None,
        rank=rank,
    )


def resolve(adapter: Adapter) -> VersionRecord:
    if adapter.name not in NAMES:
        raise AdapterNotFound(adapter.name)
    return record(adapter.name, adapter.version if isinstance(adapter.version, int) else 3)


def recipe(text: str) -> Recipe:
    target = parse(text).target
    assert isinstance(target, Mixture)
    return settled(target, resolve)


@pytest.mark.parametrize(
    ("asked", "canonical"),
    [
        ("a+0.5*b@2", "1*a@3+0.5*b@2"),
        ("0.5*b@2+a", "1*a@3+0.5*b@2"),
        ("-2*a+b", "1*b@3+-2*a@3"),
        ("b+a", "1*a@3+1*b@3"),
        ("0.25*a+0.5*a@3+b", "1*b@3+0.75*a@3"),
        ("a+0*b", "1*a@3"),
        ("svd(rank=4):a+b", "svd(rank=4):1*a@3+1*b@3"),
        ("dare_ties(seed=1,density=0.5):a+b", "dare_ties(density=0.5,seed=1):1*a@3+1*b@3"),
    ],
)
def test_the_canonical_name(asked: str, canonical: str) -> None:
    assert recipe(asked).canonical == canonical
    assert recipe(canonical) == recipe(asked)


@given(st.lists(st.tuples(st.floats(-9, 9), st.sampled_from(NAMES)), min_size=1, max_size=6))
def test_the_order_does_not_count_and_the_name_selects_the_same(terms: list[tuple[float, str]]) -> None:
    mixture = [Term(weight, Adapter(name, 1)) for weight, name in terms]
    one = settled(Mixture(tuple(mixture)), resolve)
    shuffled = sorted(mixture, key=lambda term: (term.adapter.name, term.weight))
    other = settled(Mixture(tuple(shuffled)), resolve)
    assert {each.version.name for each in one.ingredients} <= {name for _, name in terms}
    order = [(-each.weight, each.version.canonical) for each in one.ingredients]
    assert order == sorted(order)
    if one.ingredients:
        assert recipe(one.canonical) == one
        assert recipe(one.canonical).key == one.key
    for each in one.ingredients:
        same = [i for i in other.ingredients if i.version == each.version]
        assert same == [] or same[0].weight == pytest.approx(each.weight, abs=1e-12)


@given(st.floats(-50, 50), st.sampled_from(NAMES))
def test_w_and_minus_w_is_nothing(weight: float, name: str) -> None:
    terms = (Term(weight, Adapter(name, 1)), Term(-weight, Adapter(name, 1)))
    assert settled(Mixture(terms), resolve).ingredients == ()


def test_the_key_knows_content_weights_and_method_only() -> None:
    one = recipe("0.5*a+b")
    twin = Recipe(one.method, tuple(reversed(one.ingredients)))
    assert one.key == twin.key
    different = [recipe(text).key for text in ("0.5*a+b", "0.25*a+b", "0.5*a+b@1", "svd(rank=2):0.5*a+b", "0.5*b+a")]
    assert len(set(different)) == 5
    assert all(len(key) == 64 for key in different)


@pytest.mark.parametrize(
    ("text", "single"), [("1*a", "a@3"), ("2*a+-1*a@3", "a@3"), ("2*a", None), ("lorahub:1*a", None), ("a+b", None)]
)
def test_a_mixture_that_is_one_adapter(text: str, single: str | None) -> None:
    found = recipe(text).single
    assert (found and found.canonical) == single


@pytest.mark.parametrize("text", ["101*a", "-101*a", "1e308*a+b", "70*a+70*a@3"])
def test_weights_beyond_all_reason(text: str) -> None:
    with pytest.raises(InvalidMixture, match=r"the weight of a@3 is .*: give one from -100 to 100"):
        recipe(text)
    assert MAX_WEIGHT == 100


def test_a_term_that_is_not_there_counts_also_at_weight_zero() -> None:
    with pytest.raises(AdapterNotFound):
        recipe("a+0*unknown")


def test_what_is_written_down_of_it() -> None:
    made = recipe("0.5*a+b@1")
    assert made.uses("a@3")
    assert not made.uses("a@1")
    assert made.ranks == [2, 2]
    assert made.method == EXACT != Method("lorahub")
    assert made.provenance() == {
        "mixture": "1*b@1+0.5*a@3",
        "method": "exact",
        "terms": [
            {"adapter": "b@1", "digest": record("b", 1).digest, "weight": 1.0},
            {"adapter": "a@3", "digest": record("a", 3).digest, "weight": 0.5},
        ],
    }
