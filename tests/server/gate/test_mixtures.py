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
from loraloom.adapters.mixtures.mix import Limit, Outcome
from loraloom.adapters.mixtures.recipe import Recipe, settled
from loraloom.adapters.names import Mixture, parse
from loraloom.adapters.store import Store
from loraloom.adapters.store.records import VersionRecord
from loraloom.adapters.weights import read_factors
from loraloom.server.errors import MixturesBusy, RankTooHigh
from loraloom.server.gate.building import Builder
from loraloom.server.gate.mixtures import Mixtures
from loraloom.server.gate.turns import Turns
from tests.server.conftest import Publish

MODULE = "model.layers.0.self_attn.q_proj"
PLENTY = 2**30
PATIENCE = 60.0
"""Seconds after which a test that waits for something fails."""


class CountingBlobs:
    """A store's blobs, which count how often each is read, and who uses them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads: Counter[str] = Counter()
        self.in_use: Counter[str] = Counter()
        self.asked = threading.Event()
        self.before_each = threading.Event()
        self.before_each.set()

    def acquire(self, digest: str) -> Path:
        self.asked.set()
        assert self.before_each.wait(PATIENCE)
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
def place(tmp_path: Path) -> Path:
    """Where mixtures are kept."""
    folder = tmp_path / "mixtures"
    folder.mkdir()
    return folder


def cache_of(
    place: Path, blobs: CountingBlobs, rank: int = 16, size: int = PLENTY, *, truncate: bool = False
) -> Mixtures:
    return Mixtures(place, Builder(blobs, Limit(rank, truncate), PLENTY).build, size, PATIENCE)


async def prepare(mixtures: Mixtures, recipe: Recipe) -> Outcome:
    async with mixtures.kept(recipe) as outcome:
        return outcome


@pytest.fixture
def mixtures(place: Path, blobs: CountingBlobs) -> Iterator[Mixtures]:
    cache = cache_of(place, blobs)
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
    outcome = await prepare(mixtures, recipe)
    assert (outcome.rank, outcome.error) == (4, 0)
    folder = mixtures.acquire(recipe)
    a, b = (dense(store.folder(each.version.digest)) for each in recipe.ingredients)
    for row, (of_a, of_b) in zip(dense(folder), zip(a, b, strict=True), strict=True):
        assert row == pytest.approx([0.75 * x - 0.5 * y for x, y in zip(of_a, of_b, strict=True)], abs=1e-5)
    assert await prepare(mixtures, recipe) == outcome
    mixtures.release(recipe)
    assert set(blobs.reads.values()) == {1}


def test_many_at_once_build_one(mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf) -> None:
    recipe = recipe_of("a+b")
    blobs.before_each.clear()
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(mixtures.acquire, recipe) for _ in range(8)]
        blobs.before_each.set()
        folders = {each.result(timeout=PATIENCE) for each in waiting}
    assert len(folders) == 1
    assert set(blobs.reads.values()) == {1}
    for _ in waiting:
        mixtures.release(recipe)


async def test_other_names_of_the_same_share_it(
    mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf, publish: Publish
) -> None:
    publish("twin", seed=0)  # what a was made of
    await prepare(mixtures, recipe_of("a+b"))
    await prepare(mixtures, recipe_of("b+twin"))
    assert set(blobs.reads.values()) == {1}


async def test_the_bound_holds_and_what_was_evicted_is_built_again(
    place: Path, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    measuring = cache_of(place, blobs)
    await prepare(measuring, recipe_of("0.5*a+b"))
    one = measuring.kept_bytes
    measuring.forget("a@1")
    cache = cache_of(place, blobs, size=10 * one + one // 2)
    recipes = [recipe_of(f"{weight / 64}*a+b") for weight in range(1, 41)]
    expected = {}
    for round_of in (recipes, list(reversed(recipes)), random.Random(0).sample(recipes, len(recipes))):
        for recipe in round_of:
            folder = cache.acquire(recipe)
            update = dense(folder)
            assert expected.setdefault(recipe.key, update) == update
            cache.release(recipe)
            assert cache.kept_bytes <= 10 * one + one // 2
            assert 1 <= len(list(place.iterdir())) <= 10
    assert len({str(update) for update in expected.values()}) == 40


async def test_what_is_acquired_stays_whatever_the_bound(
    blobs: CountingBlobs, recipe_of: RecipeOf, place: Path
) -> None:
    cache = cache_of(place, blobs, size=1)
    held = [recipe_of(text) for text in ("a+b", "a+c", "b+c")]
    folders = [cache.acquire(recipe) for recipe in held]
    await prepare(cache, recipe_of("2*a+b"))
    assert all((folder / "adapter_model.safetensors").is_file() for folder in folders)
    for recipe in held:
        cache.release(recipe)
    last = recipe_of("3*a+b")
    await prepare(cache, last)
    assert [each.name for each in place.iterdir()] == [last.key]


async def test_a_removed_version_takes_its_mixtures_with_it(
    mixtures: Mixtures, recipe_of: RecipeOf, place: Path
) -> None:
    idle, used, other = recipe_of("a+b"), recipe_of("2*a+b"), recipe_of("b+c")
    for recipe in (idle, other):
        await prepare(mixtures, recipe)
    folder = mixtures.acquire(used)
    mixtures.forget("a@1")
    assert {each.name for each in place.iterdir()} == {used.key, other.key}
    assert folder.is_dir()
    mixtures.release(used)
    assert {each.name for each in place.iterdir()} == {other.key}


async def test_a_rank_over_the_limit_is_refused_with_the_numbers_and_remembered(
    mixtures: Mixtures, blobs: CountingBlobs, publish: Publish, store: Store, place: Path
) -> None:
    # The module is 8 x 8, so its true rank is never above 8.
    for name in ("x", "y", "z"):
        publish(name, rank=4)
    cache = cache_of(place, blobs, rank=6)
    recipe = RecipeOf(store)("x+0.5*y+0.25*z")
    for _ in range(2):
        with pytest.raises(RankTooHigh, match=r"has rank 8 \(its adapters: 4 \+ 4 \+ 4\); .* up to 6.*svd\(rank=6\)"):
            await prepare(cache, recipe)
    assert set(blobs.reads.values()) == {1}
    assert list(place.iterdir()) == []


async def test_or_truncated_where_the_server_may(
    blobs: CountingBlobs, publish: Publish, store: Store, place: Path
) -> None:
    for name in ("x", "y", "z"):
        publish(name, rank=4)
    cache = cache_of(place, blobs, rank=6, truncate=True)
    outcome = await prepare(cache, RecipeOf(store)("x+0.5*y+0.25*z"))
    assert outcome.rank == 6
    assert 0 < outcome.error < 1


async def test_a_redundant_mixture_over_the_limit_is_served_exactly(mixtures: Mixtures, recipe_of: RecipeOf) -> None:
    """12 + 12 is over 16, but no update of an 8 x 8 module has a rank above 8."""
    outcome = await prepare(mixtures, recipe_of("large+wide"))
    assert outcome.rank == 8
    assert outcome.error == pytest.approx(0, abs=1e-6)


async def test_unequal_ranks_cannot_be_composed(mixtures: Mixtures, recipe_of: RecipeOf, place: Path) -> None:
    with pytest.raises(InvalidMixture, match="12"):
        await prepare(mixtures, recipe_of("lorahub:a+large"))
    assert list(place.iterdir()) == []


async def test_a_damaged_ingredient_leaves_nothing_behind(
    mixtures: Mixtures, store: Store, recipe_of: RecipeOf, place: Path
) -> None:
    recipe = recipe_of("a+b")
    weights = store.folder(recipe.ingredients[0].version.digest) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    with pytest.raises(DamagedBlob):
        await prepare(mixtures, recipe)
    assert list(place.iterdir()) == []
    weights.write_bytes(whole)
    assert (await prepare(mixtures, recipe)).rank == 4


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
    mixtures: Mixtures, recipe_of: RecipeOf, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    recipe = recipe_of("a+b")
    with monkeypatch.context() as full:
        full.setattr("os.rename", _no_space)
        with pytest.raises(StoreError, match="is full"):
            await prepare(mixtures, recipe)
    assert list(place.iterdir()) == []
    assert (await prepare(mixtures, recipe)).rank == 4


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_a_client_that_leaves_does_not_end_the_building(
    mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    recipe = recipe_of("a+b")
    blobs.before_each.clear()
    waiting = asyncio.ensure_future(prepare(mixtures, recipe))
    assert await asyncio.to_thread(blobs.asked.wait, PATIENCE)
    waiting.cancel()
    blobs.before_each.set()
    assert (await prepare(mixtures, recipe)).rank == 4
    assert set(blobs.reads.values()) == {1}


def test_many_at_once_are_refused_by_one_attempt(mixtures: Mixtures, blobs: CountingBlobs, recipe_of: RecipeOf) -> None:
    recipe = recipe_of("lorahub:a+large")
    blobs.before_each.clear()
    with ThreadPoolExecutor(6) as threads:
        waiting = [threads.submit(mixtures.acquire, recipe) for _ in range(6)]
        blobs.before_each.set()
        errors = [each.exception(timeout=PATIENCE) for each in waiting]
    assert all(isinstance(error, InvalidMixture) for error in errors)
    assert set(blobs.reads.values()) == {1}


async def test_a_refusal_names_what_the_client_asked_for(
    place: Path, blobs: CountingBlobs, publish: Publish, store: Store
) -> None:
    for name, seed in (("one", 1), ("two", 2), ("three", 3), ("twin", 1)):
        publish(name, rank=4, seed=seed)
    cache = cache_of(place, blobs, rank=6)
    for name in ("one", "twin"):
        with pytest.raises(RankTooHigh, match=rf"1\*{name}@1"):
            await prepare(cache, RecipeOf(store)(f"{name}+0.5*two+0.25*three"))
    assert set(blobs.reads.values()) == {1}


async def test_a_request_waits_for_its_mixture_only_so_long(
    place: Path, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    cache = Mixtures(place, Builder(blobs, Limit(16), PLENTY).build, PLENTY, patience=0.05)
    blobs.before_each.clear()
    with pytest.raises(MixturesBusy, match="was not built within 0.05 s"):
        await prepare(cache, recipe_of("a+b"))
    blobs.before_each.set()
    async with asyncio.timeout(PATIENCE):
        while not cache.kept_bytes:
            await asyncio.sleep(0.01)


async def test_what_is_kept_stays_for_the_length_of_the_block(
    place: Path, blobs: CountingBlobs, recipe_of: RecipeOf
) -> None:
    cache = cache_of(place, blobs, size=1)
    recipe = recipe_of("a+b")
    async with cache.kept(recipe):
        for weight in range(2, 6):
            await prepare(cache, recipe_of(f"{weight}*a+b"))
        assert (place / recipe.key / "adapter_model.safetensors").is_file()
    await prepare(cache, recipe_of("a+c"))
    assert not (place / recipe.key).exists()


async def test_only_what_has_to_be_built_takes_a_turn(mixtures: Mixtures, recipe_of: RecipeOf) -> None:
    turns = Turns(1, patience=0.0)
    async with turns.taken("k"):  # by another that is being built
        with pytest.raises(MixturesBusy):
            async with mixtures.kept(recipe_of("0.5*a+0.5*b"), turns.taken("k")):
                pass
        await prepare(mixtures, recipe_of("0.5*a+0.5*b"))
        async with mixtures.kept(recipe_of("0.5*a+0.5*b"), turns.taken("k")) as outcome:
            assert outcome.rank


async def test_a_new_mixture_is_not_compared_with_every_version_that_was_removed(
    mixtures: Mixtures, recipe_of: RecipeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def canonical(version: VersionRecord) -> str:
        looks.append(version.name)
        return f"{version.name}@{version.number}"

    recipe = recipe_of("a+b")
    for number in range(1000):
        mixtures.forget(f"removed@{number}")
    monkeypatch.setattr(VersionRecord, "canonical", property(canonical))
    mixtures.acquire(recipe)
    mixtures.release(recipe)
    assert len(looks) < 10


async def test_a_mixture_that_is_built_after_a_removal_does_not_stay(
    mixtures: Mixtures, place: Path, recipe_of: RecipeOf
) -> None:
    """As when a request was under way."""
    mixtures.forget("a@1")
    async with mixtures.kept(recipe_of("a+b")):
        assert len(list(place.iterdir())) == 1
    assert list(place.iterdir()) == []
