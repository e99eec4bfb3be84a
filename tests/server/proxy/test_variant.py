"""Variants: how they are named and told apart, and what is written for the composite model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from loraloom.adapters.errors import MixtureRankTooHigh
from loraloom.adapters.manifest import WEIGHTS_FILE, read_manifest
from loraloom.adapters.mixtures.mix import Limit, Outcome, mix
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import parse
from loraloom.adapters.normal import FILES, normalise
from loraloom.adapters.store import Store
from loraloom.adapters.weights import read_factors
from loraloom.server.proxy import strength
from loraloom.server.proxy.variant import Variant, write_variant
from tests.server.conftest import BASE, Publish

MODULE = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def stored(store: Store, publish: Publish, publish_small: Publish) -> Store:
    """The adapters a, twin (the same as a) and b of the small model, and c of the large one."""
    for name, seed in (("a", 1), ("twin", 1), ("b", 2)):
        publish_small(name, seed=seed, rank=3)
    publish("c", seed=3, rank=4)
    return store


def variant(store: Store, text: str, **fields: Any) -> Variant:
    """What a selection stands for where all adapters but c are the small model's."""
    selection = parse(text)
    recipe = settled(selection.mixture, store.resolve)
    names = (each.version.canonical for each in recipe.ingredients)
    steering = frozenset(name for name in names if name != "c@1")
    made = Variant(recipe.method, recipe.ingredients, steering, selection.alpha, base=BASE)
    return replace(made, **fields)


def written(store: Store, made: Variant, out: Path, limit: Limit | None = None) -> Outcome:
    sources = [(each.weight, store.folder(each.version.digest)) for each in made.ingredients]
    out.mkdir()
    return write_variant(made, sources, out, limit)


def update_of(folder: Path, path: str) -> torch.Tensor:
    factors, _ = read_factors(folder)
    return factors[path].b.double() @ factors[path].a.double()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a~0.7", "a@1~0.7"),
        ("1*a~-1", "a@1~-1"),
        ("c", "c@1"),
        ("0.5*a~1", "0.5*a@1~1"),
        ("a+0.5*c~1.5", "1*a@1+0.5*c@1~1.5"),
        ("lorahub:a+b~1e-5", "lorahub:1*a@1+1*b@1~1e-05"),
    ],
)
def test_the_name_selects_exactly_this(stored: Store, text: str, name: str) -> None:
    made = variant(stored, text)
    assert made.canonical == name
    assert variant(stored, name) == made
    assert made.single is None


def test_without_an_adapter_it_is_named_after_the_large_model(stored: Store) -> None:
    assert variant(stored, "a~0", ingredients=(), steering=frozenset()).canonical == f"{BASE}~0"


def test_what_differs_is_told_apart(stored: Store) -> None:
    texts = ("a~1", "a~0.5", "a", "b~1", "0.5*a~1", "a+b~1", "a+0.5*b~1", "lorahub:a+b~1", "c")
    made = [variant(stored, text) for text in texts]
    made.append(variant(stored, "a~1", steering=frozenset()))
    recipe = settled(parse("a").mixture, stored.resolve)
    assert len({each.key for each in made} | {recipe.key}) == len(made) + 1


def test_the_same_content_under_another_name_is_the_same(stored: Store) -> None:
    one, other = variant(stored, "a+0.5*b~1"), variant(stored, "twin+0.5*b~1")
    assert one.canonical != other.canonical
    assert one.key == other.key


def test_the_same_content_on_either_side_is_told_apart_by_its_weight(stored: Store) -> None:
    steering = frozenset({"a@1"})
    one, other = (variant(stored, text, steering=steering) for text in ("0.3*a+0.7*twin~1", "0.7*a+0.3*twin~1"))
    assert one.key != other.key


def test_the_small_models_adapter_goes_to_the_expert(stored: Store, tmp_path: Path) -> None:
    made = variant(stored, "a~0.3")
    outcome = written(stored, made, tmp_path / "out")
    assert outcome == Outcome(rank=3, error=0.0)
    stored_update = update_of(stored.folder(made.ingredients[0].version.digest), MODULE)
    assert torch.equal(update_of(tmp_path / "out", f"expert.{MODULE}"), stored_update)
    assert set(load_file(tmp_path / "out" / WEIGHTS_FILE)) == {
        f"base_model.model.{path}.lora_{factor}.weight"
        for path in (f"expert.{MODULE}", strength.PATH)
        for factor in "AB"
    }


@pytest.mark.parametrize("alpha", [0.3, 0.0, -4.0])
def test_the_strength_goes_with_it(stored: Store, tmp_path: Path, alpha: float) -> None:
    written(stored, variant(stored, "a", alpha=alpha), tmp_path / "out")
    factors, _ = read_factors(tmp_path / "out")
    said = factors[strength.PATH]
    assert said.b.dtype == torch.bfloat16
    assert torch.equal(said.a, torch.ones(1, 1, dtype=torch.bfloat16))
    assert said.b.flatten().tolist() == [*strength.split(alpha), strength.GIVEN]


def test_the_large_models_adapter_goes_to_it_and_carries_no_strength(stored: Store, tmp_path: Path) -> None:
    made = variant(stored, "c")
    written(stored, made, tmp_path / "out")
    assert set(read_manifest(tmp_path / "out").modules) == {f"large.{MODULE}"}


def test_a_mixture_over_both_models(stored: Store, tmp_path: Path) -> None:
    outcome = written(stored, variant(stored, "0.5*a+2*b+-1*c~1"), tmp_path / "out")
    assert outcome.rank == 6
    assert set(read_manifest(tmp_path / "out").modules) == {f"expert.{MODULE}", f"large.{MODULE}", strength.PATH}
    a, b, c = (update_of(stored.folder(stored.resolve(parse(name).target).digest), MODULE) for name in "abc")
    torch.testing.assert_close(update_of(tmp_path / "out", f"expert.{MODULE}"), 0.5 * a + 2 * b)
    torch.testing.assert_close(update_of(tmp_path / "out", f"large.{MODULE}"), -c)


def test_no_adapter_but_a_strength(stored: Store, tmp_path: Path) -> None:
    outcome = written(stored, variant(stored, "a~0", ingredients=()), tmp_path / "out")
    assert outcome == Outcome(rank=1, error=0.0)
    assert set(read_manifest(tmp_path / "out").modules) == {strength.PATH}


def test_it_is_a_normal_form(stored: Store, tmp_path: Path) -> None:
    """Which the engine loads as peft's: the scaling is 1."""
    written(stored, variant(stored, "a+c~0.3"), tmp_path / "out")
    (tmp_path / "again").mkdir()
    normalise(tmp_path / "out", tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    manifest = read_manifest(tmp_path / "out")
    assert set(manifest.scaling.values()) == {1.0}
    assert manifest.task_type == "CAUSAL_LM"


def test_the_limit_is_each_sides_own(stored: Store, tmp_path: Path) -> None:
    assert written(stored, variant(stored, "a+c~1"), tmp_path / "fits", Limit(4)).rank == 4
    with pytest.raises(MixtureRankTooHigh) as refusal:
        written(stored, variant(stored, "a+c~1"), tmp_path / "refused", Limit(3))
    assert (refusal.value.rank, refusal.value.limit) == (4, 3)
    truncated = written(stored, variant(stored, "a+c~1"), tmp_path / "cut", Limit(3, truncate=True))
    assert truncated.rank == 3
    assert 0 < truncated.error < 1


def test_a_plain_recipe_is_none(stored: Store, tmp_path: Path) -> None:
    recipe: Recipe = settled(parse("a+b").mixture, stored.resolve)
    with pytest.raises(AssertionError):
        write_variant(recipe, [], tmp_path, None)


def test_the_error_is_that_of_the_adapters(stored: Store, tmp_path: Path) -> None:
    """And not made smaller by the strength, which nothing is left out of."""
    plain, out = tmp_path / "plain", tmp_path / "out"
    plain.mkdir()
    made = variant(stored, "svd(rank=1):a+b~4")
    sources = [(each.weight, stored.folder(each.version.digest)) for each in made.ingredients]
    expected = mix(made.method, sources, plain)
    assert expected.error > 0.1
    assert written(stored, made, out).error == pytest.approx(expected.error)
