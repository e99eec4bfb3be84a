"""Mixtures as versions of their own."""

from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob, InvalidAdapter
from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.mixtures.publication import publish_mixture
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import Adapter, Mixture, parse
from loraloom.adapters.store import Store
from tests.adapters.small_adapters import small_adapter


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    for seed, name in enumerate(("a", "b", "c")):
        store.publish(small_adapter(tmp_path / name, seed=seed), name)
    return store


def recipe(store: Store, text: str) -> Recipe:
    target = parse(text).target
    assert isinstance(target, Mixture)
    return settled(target, store.resolve)


def test_a_mixture_becomes_a_version_that_says_what_it_is(store: Store) -> None:
    made = recipe(store, "0.5*a+b")
    published, outcome = publish_mixture(store, made, "team/both", tag="stable", base_name="tiny", by="tester")
    record = store.resolve(Adapter("team/both"))
    assert published.created
    assert record == published.version
    assert (record.rank, outcome.rank, outcome.error) == (4, 4, 0)
    assert (record.base_name, record.by) == ("tiny", "tester")
    assert store.tags("team/both") == {"latest": 1, "stable": 1}
    assert record.provenance == {**made.provenance(), "rank": 4, "error": 0.0}
    assert store.verify() == []


def test_the_same_mixture_again_is_the_same_version(store: Store) -> None:
    first, _ = publish_mixture(store, recipe(store, "0.5*a+b"), "both")
    again, _ = publish_mixture(store, recipe(store, "b+0.5*a@1"), "both")
    assert not again.created
    assert again.version == first.version


def test_one_adapter_alone_is_that_adapter(store: Store) -> None:
    published, _ = publish_mixture(store, recipe(store, "1*a"), "copy")
    assert published.version.digest == store.resolve(Adapter("a")).digest


def test_within_a_rank(store: Store) -> None:
    published, outcome = publish_mixture(store, recipe(store, "a+b+c"), "small", limit=Limit(3, truncate=True))
    assert published.version.rank == outcome.rank == 3
    assert published.version.provenance["error"] == outcome.error > 0


def test_one_that_changes_nothing(store: Store, tmp_path: Path) -> None:
    store.publish(small_adapter(tmp_path / "twin", seed=0), "twin")
    with pytest.raises(InvalidAdapter, match="changes nothing"):
        publish_mixture(store, recipe(store, "a+-1*twin"), "zero")
    published, _ = publish_mixture(store, recipe(store, "a+-1*twin"), "zero", allow_noop=True)
    assert published.version.canonical == "zero@1"


def test_a_damaged_ingredient(store: Store) -> None:
    weights = store.folder(store.resolve(Adapter("a")).digest) / "adapter_model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedBlob):
        publish_mixture(store, recipe(store, "a+b"), "both")
    assert "both" not in store.names()
