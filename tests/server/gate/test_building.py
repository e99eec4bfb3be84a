"""How a mixture is built from a real store, and what is told when it cannot be."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob, InvalidMixture, MixtureRankTooHigh
from loraloom.adapters.mixtures.mix import Limit, Outcome
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import parse
from loraloom.adapters.store import Store
from loraloom.adapters.weights import read_factors
from loraloom.server.errors import RankTooHigh
from loraloom.server.gate.building import Builder, refusal
from tests.server.conftest import Publish

PLENTY = 2**30


@pytest.fixture
def recipe(store: Store, publish: Publish) -> Recipe:
    """Of two adapters of rank 4 that differ."""
    for name in ("a", "b"):
        publish(name, rank=4)
    return settled(parse("0.5*a+b").mixture, store.resolve)


def test_the_folder_shows_up_complete(store: Store, recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "mixtures" / "one"
    outcome = Builder(store, Limit(8), PLENTY).build(recipe, folder)
    factors, _ = read_factors(folder)
    assert outcome.rank == max(each.rank for each in factors.values()) == 8
    assert [each.name for each in folder.parent.iterdir()] == ["one"]


def test_what_is_written_is_of_the_builders_choice(store: Store, recipe: Recipe, tmp_path: Path) -> None:
    written: list[object] = []

    def write(*given: object) -> Outcome:
        written.append(given)
        return Outcome(3, 0.5)

    outcome = Builder(store, Limit(8), PLENTY, write).build(recipe, tmp_path / "one")
    assert outcome == Outcome(3, 0.5)
    sources = [(each.weight, store.folder(each.version.digest)) for each in recipe.ingredients]
    assert written == [(recipe, sources, tmp_path / "one.new", Limit(8))]
    assert [each.name for each in tmp_path.glob("one*")] == ["one"]


def test_what_is_there_already_is_replaced(store: Store, recipe: Recipe, tmp_path: Path) -> None:
    for left_over in ("one", "one.new"):
        (tmp_path / left_over).mkdir()
        (tmp_path / left_over / "adapter_config.json").write_text("half")
    Builder(store, Limit(8), PLENTY).build(recipe, tmp_path / "one")
    assert len(read_factors(tmp_path / "one")[0]) == 1
    assert not (tmp_path / "one.new").exists()


def test_what_cannot_be_built_leaves_nothing(store: Store, recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "mixtures" / "one"
    with pytest.raises(MixtureRankTooHigh):
        Builder(store, Limit(7), PLENTY).build(recipe, folder)
    assert list(folder.parent.iterdir()) == []
    (store.folder(recipe.ingredients[0].version.digest) / "adapter_model.safetensors").unlink()
    with pytest.raises(DamagedBlob):
        Builder(store, Limit(8), PLENTY).build(recipe, folder)
    assert list(folder.parent.iterdir()) == []


def test_more_bytes_than_the_server_mixes(store: Store, recipe: Recipe, tmp_path: Path) -> None:
    sizes = [store.folder(each.version.digest) / "adapter_model.safetensors" for each in recipe.ingredients]
    size = sum(file.stat().st_size for file in sizes)
    with pytest.raises(
        InvalidMixture, match=f"have {size:,} bytes together, and this server mixes up to {size - 1:,} "
    ):
        Builder(store, Limit(8), size - 1).build(recipe, tmp_path / "one")
    assert Builder(store, Limit(8), size).build(recipe, tmp_path / "one").rank == 8


def test_a_refusal_says_what_to_ask_for(recipe: Recipe) -> None:
    told = refusal(recipe, MixtureRankTooHigh(8, 6))
    assert isinstance(told, RankTooHigh)
    assert told.param == "model"
    assert "rank 8 (its adapters: 4 + 4); this server serves up to 6" in str(told)
    assert "svd(rank=6):1*b@1+0.5*a@1" in str(told)
    other = refusal(recipe, InvalidMixture("for another reason"))
    assert (type(other), str(other)) == (InvalidMixture, "for another reason")
