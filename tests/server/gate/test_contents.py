"""Directories of stored versions and of mixtures from one place."""

from pathlib import Path

from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.mixtures.recipe import settled
from loraloom.adapters.names import Mixture, parse
from loraloom.adapters.store import Store
from loraloom.server.gate.blobs import VerifiedBlobs
from loraloom.server.gate.building import Builder
from loraloom.server.gate.contents import Contents
from loraloom.server.gate.mixtures import Mixtures
from tests.server.conftest import Publish


def test_each_kind_comes_from_its_own_place(store: Store, publish: Publish, tmp_path: Path) -> None:
    a, _ = publish("a"), publish("b")
    stored = VerifiedBlobs(store)
    build = Builder(stored, Limit(16), 2**30).build
    contents = Contents(stored, Mixtures(tmp_path, build, 2**30, patience=10.0))
    target = parse("a+b").target
    assert isinstance(target, Mixture)
    recipe = settled(target, store.resolve)
    assert contents.acquire(a.digest) == store.folder(a.digest)
    assert contents.acquire(recipe) == tmp_path / recipe.key
    contents.release(a.digest)
    contents.release(recipe)
