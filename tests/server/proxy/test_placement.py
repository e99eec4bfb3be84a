"""How adapters are put onto a large model and the small one that steers it."""

from dataclasses import replace

import pytest

from loraloom.adapters.errors import BaseMismatch, InvalidMixture
from loraloom.adapters.methods import EXACT
from loraloom.adapters.mixtures.recipe import Ingredient, Recipe
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.base import ServedPair
from loraloom.server.errors import InvalidAlpha
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.placement import Application
from loraloom.server.proxy.placement import OnThePair
from loraloom.server.proxy.variant import Variant
from tests.server.conftest import BASE, Publish

NOTHING = Recipe(EXACT, ())


@pytest.fixture
def placement(served_pair: ServedPair) -> OnThePair:
    """Of a small model that steers with its adapters, by 0.9 where nothing is said."""
    return OnThePair(BASE, served_pair, alpha=0.9, most=4.0, own_expert=False)


@pytest.fixture
def with_expert(placement: OnThePair) -> OnThePair:
    """The same with a tuned small model as the expert."""
    return replace(placement, own_expert=True)


@pytest.fixture
def small(publish_small: Publish) -> VersionRecord:
    return publish_small("small")


@pytest.fixture
def large(publish: Publish) -> VersionRecord:
    return publish("large")


def of(*versions: VersionRecord, weight: float = 1.0) -> Recipe:
    return Recipe(EXACT, tuple(Ingredient(weight, version) for version in versions))


def variant_of(choice: Choice) -> Variant:
    assert isinstance(choice.content, Variant)
    assert choice.content.canonical == choice.model
    return choice.content


def test_the_small_models_adapter_steers(placement: OnThePair, small: VersionRecord) -> None:
    for alpha, name, strength in ((None, "small@1~0.9", 0.9), (0.5, "small@1~0.5", 0.5), (0.0, "small@1~0", 0.0)):
        choice = placement.place(of(small), alpha)
        assert choice.model == name
        variant = variant_of(choice)
        assert (variant.steering, variant.alpha) == ({"small@1"}, strength)


def test_the_large_models_adapter_is_loaded_into_it(placement: OnThePair, large: VersionRecord) -> None:
    choice = placement.place(of(large), None)
    assert choice.model == "large@1"
    variant = variant_of(choice)
    assert (variant.steering, variant.alpha) == (frozenset(), None)


def test_a_mixture_of_both_has_a_strength(placement: OnThePair, small: VersionRecord, large: VersionRecord) -> None:
    choice = placement.place(of(small, large, weight=0.5), 2.0)
    assert choice.model == "0.5*small@1+0.5*large@1~2"
    assert variant_of(choice).steering == {"small@1"}
    assert placement.place(of(small, large), None).model == "1*small@1+1*large@1~0.9"


def test_no_adapter_is_the_plain_large_model(placement: OnThePair) -> None:
    assert placement.place(NOTHING, None) == Choice(BASE)
    with pytest.raises(InvalidAlpha, match="needs an adapter of the small model") as refusal:
        placement.place(NOTHING, 0.0)
    assert refusal.value.param == "model"


def test_a_large_models_adapter_has_nothing_to_strengthen(placement: OnThePair, large: VersionRecord) -> None:
    with pytest.raises(InvalidAlpha, match="large@1 was trained on the large model") as refusal:
        placement.place(of(large), 0.5)
    assert "0.7*NAME" in str(refusal.value)
    with pytest.raises(InvalidAlpha, match=r"0\.5\*large@1 was trained on the large model"):
        placement.place(of(large, weight=0.5), 0.5)


def test_an_expert_of_its_own_steers_without_any_adapter(with_expert: OnThePair, large: VersionRecord) -> None:
    assert with_expert.place(NOTHING, None) == Choice(BASE), "which is proxied by the default strength"
    plain = with_expert.place(NOTHING, 0.0)
    assert plain.model == f"{BASE}~0"
    assert variant_of(plain).alpha == 0.0
    assert with_expert.place(of(large), None).model == "large@1"
    assert with_expert.place(of(large), 0.5).model == "large@1~0.5"


@pytest.mark.parametrize("alpha", [4.1, -4.1, float("nan"), float("inf")])
def test_a_strength_out_of_range(placement: OnThePair, small: VersionRecord, alpha: float) -> None:
    with pytest.raises(InvalidAlpha, match=r"is .*: give one from -4 to 4 \(`proxy_max_alpha`\)"):
        placement.place(of(small), alpha)


@pytest.mark.parametrize("alpha", [4.0, -4.0])
def test_the_ends_of_the_range_are_in_it(placement: OnThePair, small: VersionRecord, alpha: float) -> None:
    assert placement.place(of(small), alpha).model == f"small@1~{alpha:g}"


def test_an_adapter_of_neither_model(placement: OnThePair, publish: Publish) -> None:
    with pytest.raises(BaseMismatch, match="'strange@1' fits neither model that is served here"):
        placement.place(of(publish("strange", width=6, base=None)), None)


def test_a_name_that_could_not_be_asked_for(placement: OnThePair, publish_small: Publish) -> None:
    with pytest.raises(InvalidMixture, match="more than 4096 characters: mix fewer"):
        placement.place(of(*[publish_small("x" * 64)] * 60, weight=0.5), None)


def test_how_a_version_acts_by_itself(placement: OnThePair, small: VersionRecord, large: VersionRecord) -> None:
    assert placement.application(small) == Application("small@1~0.9", by_proxy=True, alpha=0.9)
    assert placement.application(large) == Application("large@1", by_proxy=False, alpha=None)


def test_an_expert_of_its_own_steers_whatever_is_asked_for(with_expert: OnThePair, large: VersionRecord) -> None:
    assert with_expert.application(large) == Application("large@1", by_proxy=False, alpha=0.9)


def test_strengths_that_hardly_differ_are_one(placement: OnThePair, small: VersionRecord) -> None:
    models = {placement.place(of(small), alpha).model for alpha in (0.3, 0.1 + 0.2, 0.30000001)}
    assert models == {"small@1~0.3"}
    assert placement.place(of(small), 1e-30).model == "small@1~0"
