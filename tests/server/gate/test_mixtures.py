"""The bounded cache of mixtures, on a real store."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loraloom.adapters.errors import DamagedBlob, InvalidMixture, StoreError
from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import Mixture, parse
from loraloom.adapters.store import Store
from loraloom.adapters.weights import read_factors
from loraloom.server.errors import RankTooHigh
from loraloom.server.gate.mixtures import Mixtures
from loraloom.server.scratch import Scratch
from tests.server.conftest import Publish

MODULE = "model.layers.0.self_attn.q_proj"
PLENTY = 2**30


class CountingBlobs:
    """A store's blobs, which count how often each is read, and who uses them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads: Counter[str] = Counter()
        self.in_use: Counter[str] = Counter()
        self.before_each = threading.Event()
        self.before_each.set()

    def acquire(self, digest: str) -> Path:
        assert self.before_each.wait(10)
        self.reads[digest] += 1
        folder = self.store.acquire(digest)
        self.in_use[digest] += 1
        return folder

    def release(self, digest: str) -> None:
        self.in_use[digest] -= 1
        self.store.release(digest)


@pytest.fixture
def blobs(store: Store) -> CountingBlobs:
    return CountingBlobs(store)


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "mixtures")


@pytest.fixture
def mixtures(scratch: Scratch, blobs: CountingBlobs) -> Iterator[Mixtures]:
    cache = Mixtures(scratch, blobs, Limit(16), PLENTY)
    yield cache
    assert not +blobs.in_use, "every ingredient is given back"


@pytest.fixture
def abc(publish: Publish) -> None:
    """Adapters a, b and c of rank 2, and `large` of rank 12 with its double."""
    for name in ("a", "b", "c"):
        publish(name)
    publish("large", rank=12, seed=7)
    publish("wide", rank=12, seed=8)


@pytest.fixture
def recipe_of(store: Store, abc: None) -> "RecipeOf":
    return RecipeOf(store)


class RecipeOf:
    """The recipe that a text stands for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, text: str) -> Recipe:
        target = parse(text).target
        assert isinstance(target, Mixture)
        return settled(target, self._store.resolve)


def dense(folder: Path) -> "list[list[float]]":
    factors, _ = read_factors(folder)
    update: list[list[float]] = (factors[MODULE].b.double() @ factors[MODULE].a.double()).tolist()
    return update


async def test_a_mixture_is_built_once_and_is_the_weighted_sum(
    mixtures: Mixtures, blobs: CountingBlobs, store: Store, recipe_of: RecipeOf
) -> None:
    recipe = recipe_of("0.75*a+-0.5*b")
    outcome = await mixtures.prepare(recipe)
    assert (outcome.rank, outcome.error) == (4, 0)
    folder = mixtures.acquire(recipe)
    a, b = (dense(store.folder(each.version.digest)) for each in recipe.ingredients)
    for row, (of_a, of_b) in zip(dense(folder), zip(a, b, strict=True), strict=True):
        assert row == pytest.approx([0.75 * x - 0.5 * y for x, y in zip(of_a, of_b, strict=True)], abs=1e-5)
    assert await mixtures.prepare(recipe) == outcome
    mixtures.release(recipe)
    assert set(blobs.reads.values()) == {1}


def test_many_at_once_build_one(mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf) -> None:
    recipe = recipe_of("a+b")
    blobs.before_each.clear()
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(mixtures.acquire, recipe) for _ in range(8)]
        blobs.before_each.set()
        folders = {each.result(timeout=30) for each in waiting}
    assert len(folders) == 1
    assert set(blobs.reads.values()) == {1}
    for _ in waiting:
        mixtures.release(recipe)


async def test_other_names_of_the_same_share_it(
    mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf, publish: Publish
) -> None:
    publish("twin", seed=0)  # what a was made of
    await mixtures.prepare(recipe_of("a+b"))
    await mixtures.prepare(recipe_of("b+twin"))
    assert set(blobs.reads.values()) == {1}


def size_of_one(scratch: Scratch, blobs: CountingBlobs, recipe: Recipe) -> int:
    cache = Mixtures(scratch, blobs, Limit(16), PLENTY)
    cache.acquire(recipe)
    return cache.kept_bytes


async def test_the_bound_holds_and_what_was_evicted_is_built_again(
    tmp_path: Path, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    one = size_of_one(Scratch(tmp_path / "one"), blobs, recipe_of("0.5*a+b"))
    scratch = Scratch(tmp_path / "bounded")
    cache = Mixtures(scratch, blobs, Limit(16), 10 * one + one // 2)
    recipes = [recipe_of(f"{weight / 64}*a+b") for weight in range(1, 41)]
    expected = {}
    for round_of in (recipes, list(reversed(recipes)), random.Random(0).sample(recipes, len(recipes))):
        for recipe in round_of:
            folder = cache.acquire(recipe)
            update = dense(folder)
            assert expected.setdefault(recipe.key, update) == update
            cache.release(recipe)
            assert cache.kept_bytes <= 10 * one + one // 2
            assert 1 <= len(list(scratch.folder.iterdir())) <= 10
    assert len({str(update) for update in expected.values()}) == 40


async def test_what_is_acquired_stays_whatever_the_bound(
    scratch: Scratch, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    cache = Mixtures(scratch, blobs, Limit(16), 1)
    held = [recipe_of(text) for text in ("a+b", "a+c", "b+c")]
    folders = [cache.acquire(recipe) for recipe in held]
    await cache.prepare(recipe_of("2*a+b"))
    assert all((folder / "adapter_model.safetensors").is_file() for folder in folders)
    for recipe in held:
        cache.release(recipe)
    last = recipe_of("3*a+b")
    await cache.prepare(last)
    assert [each.name for each in scratch.folder.iterdir()] == [last.key]


async def test_a_removed_version_takes_its_mixtures_with_it(
    mixtures: Mixtures, scratch: Scratch, recipe_of: RecipeOf
) -> None:
    idle, used, other = recipe_of("a+b"), recipe_of("2*a+b"), recipe_of("b+c")
    for recipe in (idle, other):
        await mixtures.prepare(recipe)
    folder = mixtures.acquire(used)
    mixtures.forget("a@1")
    assert {each.name for each in scratch.folder.iterdir()} == {used.key, other.key}
    assert folder.is_dir()
    mixtures.release(used)
    assert {each.name for each in scratch.folder.iterdir()} == {other.key}


async def test_a_rank_over_the_limit_is_refused_with_the_numbers_and_remembered(
    mixtures: Mixtures, scratch: Scratch, blobs: CountingBlobs, publish: Publish, store: Store
) -> None:
    # The module is 8 x 8, so its true rank is never above 8.
    for name in ("x", "y", "z"):
        publish(name, rank=4)
    cache = Mixtures(scratch, blobs, Limit(6), PLENTY)
    recipe = RecipeOf(store)("x+0.5*y+0.25*z")
    for _ in range(2):
        with pytest.raises(RankTooHigh, match=r"has rank 8 \(its adapters: 4 \+ 4 \+ 4\); .* up to 6.*svd\(rank=6\)"):
            await cache.prepare(recipe)
    assert set(blobs.reads.values()) == {1}
    assert list(scratch.folder.iterdir()) == []


async def test_or_truncated_where_the_server_may(
    scratch: Scratch, blobs: CountingBlobs, publish: Publish, store: Store
) -> None:
    for name in ("x", "y", "z"):
        publish(name, rank=4)
    cache = Mixtures(scratch, blobs, Limit(6, truncate=True), PLENTY)
    outcome = await cache.prepare(RecipeOf(store)("x+0.5*y+0.25*z"))
    assert outcome.rank == 6
    assert 0 < outcome.error < 1


async def test_a_redundant_mixture_over_the_limit_is_served_exactly(mixtures: Mixtures, recipe_of: RecipeOf) -> None:
    """12 + 12 is over 16, but no update of an 8 x 8 module has a rank above 8."""
    outcome = await mixtures.prepare(recipe_of("large+wide"))
    assert outcome.rank == 8
    assert outcome.error == pytest.approx(0, abs=1e-6)


async def test_unequal_ranks_cannot_be_composed(mixtures: Mixtures, scratch: Scratch, recipe_of: RecipeOf) -> None:
    with pytest.raises(InvalidMixture, match="12"):
        await mixtures.prepare(recipe_of("lorahub:a+large"))
    assert list(scratch.folder.iterdir()) == []


async def test_a_damaged_ingredient_leaves_nothing_behind(
    mixtures: Mixtures, scratch: Scratch, store: Store, recipe_of: RecipeOf
) -> None:
    recipe = recipe_of("a+b")
    weights = store.folder(recipe.ingredients[0].version.digest) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    with pytest.raises(DamagedBlob):
        await mixtures.prepare(recipe)
    assert list(scratch.folder.iterdir()) == []
    weights.write_bytes(whole)
    assert (await mixtures.prepare(recipe)).rank == 4


async def test_a_folder_that_somebody_removed_is_made_again(
    mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    recipe = recipe_of("a+b")
    folder = mixtures.acquire(recipe)
    mixtures.release(recipe)
    (folder / "adapter_model.safetensors").unlink()
    assert mixtures.acquire(recipe) == folder
    assert len(dense(folder)) == 8
    mixtures.release(recipe)
    assert set(blobs.reads.values()) == {2}


async def test_a_full_disk_is_told_and_loses_nothing(
    mixtures: Mixtures, scratch: Scratch, recipe_of: RecipeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("a+b")
    with monkeypatch.context() as full:
        full.setattr("os.rename", _no_space)
        with pytest.raises(StoreError, match="is full"):
            await mixtures.prepare(recipe)
    assert list(scratch.folder.iterdir()) == []
    assert (await mixtures.prepare(recipe)).rank == 4


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_a_client_that_leaves_does_not_end_the_building(
    mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    recipe = recipe_of("a+b")
    blobs.before_each.clear()
    waiting = asyncio.ensure_future(mixtures.prepare(recipe))
    await asyncio.sleep(0.01)
    waiting.cancel()
    blobs.before_each.set()
    assert (await mixtures.prepare(recipe)).rank == 4
    assert set(blobs.reads.values()) == {1}
