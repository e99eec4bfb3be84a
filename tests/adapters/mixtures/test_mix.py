"""Mixtures of adapters that peft made, against their dense updates in float64."""

import math
from pathlib import Path

import pytest
import torch

from loraloom.adapters.errors import DamagedBlob, InvalidMixture, MixtureRankTooHigh
from loraloom.adapters.manifest import read_manifest
from loraloom.adapters.methods import EXACT, Method
from loraloom.adapters.mixtures.mix import Limit, Outcome, mix, mixed_modules, write_mixed
from loraloom.adapters.names import parse_method
from loraloom.adapters.normal import FILES, normalise
from loraloom.adapters.weights import read_factors
from tests.adapters.small_adapters import small_adapter
from tests.tiny_models import MakeAdapter

Dense = dict[str, torch.Tensor]


@pytest.fixture
def sources(make_adapter: MakeAdapter, tmp_path: Path) -> list[Path]:
    """Three normal forms: of different ranks, scalings, targets and types."""
    given = [
        make_adapter("one", seed=1, r=4),
        make_adapter("two", seed=2, r=3, use_rslora=True, dtype="bfloat16", target_modules=["q_proj", "down_proj"]),
        make_adapter("three", seed=3, r=2, rank_pattern={"up_proj": 5}, target_modules=["q_proj", "v_proj", "up_proj"]),
    ]
    return [normal_form(folder, tmp_path / f"normal-{number}") for number, folder in enumerate(given)]


def normal_form(given: Path, folder: Path) -> Path:
    folder.mkdir()
    normalise(given, folder)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def dense(folder: Path) -> Dense:
    factors, _ = read_factors(folder)
    return {path: each.b.double() @ each.a.double() for path, each in factors.items()}


def weighted_sum(weights: list[float], folders: list[Path]) -> Dense:
    total: Dense = {}
    for weight, folder in zip(weights, folders, strict=True):
        for path, update in dense(folder).items():
            total[path] = total.get(path, torch.zeros_like(update)) + weight * update
    return total


def norm(update: Dense) -> float:
    return math.sqrt(sum(float((each**2).sum()) for each in update.values()))


def distance(one: Dense, other: Dense) -> float:
    """Relative to the first."""
    assert set(one) == set(other)
    return norm({path: one[path] - other[path] for path in one}) / norm(one)


def pairs(weights: list[float], folders: list[Path]) -> list[tuple[float, Path]]:
    return list(zip(weights, folders, strict=True))


def test_the_exact_mixture_is_the_weighted_sum(sources: list[Path], out: Path) -> None:
    weights = [0.7, -1.3, 0.25]
    outcome = mix(EXACT, pairs(weights, sources), out)
    expected = weighted_sum(weights, sources)
    assert distance(expected, dense(out)) < 1e-6
    assert outcome.error == 0
    manifest = read_manifest(out)
    assert (outcome.rank, manifest.rank) == (9, 9)
    ranks = {path: module.rank for path, module in manifest.modules.items() if ".0." in path}
    assert {path.rpartition(".")[2]: rank for path, rank in ranks.items()} == {
        "q_proj": 9,
        "v_proj": 6,
        "down_proj": 3,
        "up_proj": 5,
    }


def test_a_mixture_is_a_normal_form(sources: list[Path], out: Path, tmp_path: Path) -> None:
    mix(EXACT, pairs([1, 1, 1], sources), out)
    again = tmp_path / "again"
    again.mkdir()
    normalise(out, again)
    for name in FILES:
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_one_adapter_with_weight_one_is_itself(sources: list[Path], out: Path) -> None:
    mix(EXACT, [(1.0, sources[1])], out, compact=True)
    for name in FILES:
        assert (out / name).read_bytes() == (sources[1] / name).read_bytes()


def test_truncation_tells_the_error_over_all_modules(sources: list[Path], out: Path) -> None:
    weights = [1.0, 0.5, -0.5]
    outcome = mix(parse_method("svd(rank=2)"), pairs(weights, sources), out)
    whole = weighted_sum(weights, sources)
    assert outcome.rank == 2
    assert 0 < outcome.error == pytest.approx(distance(whole, dense(out)), rel=1e-4)
    best = math.sqrt(sum(float((torch.linalg.svdvals(each)[2:] ** 2).sum()) for each in whole.values())) / norm(whole)
    assert outcome.error == pytest.approx(best, rel=1e-4)


def test_a_limit_is_kept_by_refusing(sources: list[Path], out: Path) -> None:
    with pytest.raises(MixtureRankTooHigh, match="the mixture has rank 9, and the limit is 8: truncate it") as refusal:
        mix(EXACT, pairs([1, 1, 1], sources), out, limit=Limit(8))
    assert (refusal.value.rank, refusal.value.limit) == (9, 8)
    assert list(out.iterdir()) == []


def test_or_by_truncating_what_is_over_it(sources: list[Path], out: Path) -> None:
    outcome = mix(EXACT, pairs([1, 1, 1], sources), out, limit=Limit(5, truncate=True))
    whole = weighted_sum([1, 1, 1], sources)
    assert outcome.rank == 5
    assert 0 < outcome.error == pytest.approx(distance(whole, dense(out)), rel=1e-4)
    untouched = [path for path in whole if path.endswith(("down_proj", "up_proj"))]
    assert distance({path: whole[path] for path in untouched}, {path: dense(out)[path] for path in untouched}) < 1e-6


def test_redundancy_is_taken_out_before_a_limit_is_held_against_it(sources: list[Path], out: Path) -> None:
    twice = [(0.5, sources[0]), (0.25, sources[0])]
    outcome = mix(EXACT, twice, out, limit=Limit(4))
    assert outcome.rank == 4
    assert distance(weighted_sum([0.75], sources[:1]), dense(out)) < 1e-6


def test_compacting_changes_nothing_but_the_rank(sources: list[Path], out: Path) -> None:
    outcome = mix(EXACT, [(1.0, sources[0]), (0.5, sources[0]), (1.0, sources[1])], out, compact=True)
    assert outcome.rank == 7
    assert outcome.error == 0
    assert distance(weighted_sum([1.5, 1.0], sources[:2]), dense(out)) < 1e-6


def test_what_cancels_is_a_zero_update_that_can_be_loaded(sources: list[Path], out: Path) -> None:
    outcome = mix(EXACT, [(1.0, sources[0]), (-1.0, sources[0])], out, compact=True)
    assert outcome.rank == 1
    assert norm(dense(out)) < 1e-5 * norm(dense(sources[0]))


@pytest.mark.parametrize(
    "method", ["lorahub", "ties(density=0.5)", "dare_linear(density=0.5)", "dare_ties(density=0.5,rank=3)"]
)
def test_every_other_method_writes_a_finite_adapter(sources: list[Path], out: Path, method: str) -> None:
    same_rank = [sources[0], sources[0]] if method == "lorahub" else sources
    outcome = mix(parse_method(method), [(0.5, folder) for folder in same_rank], out)
    assert all(update.isfinite().all() for update in dense(out).values())
    assert norm(dense(out)) > 0
    assert outcome.rank == read_manifest(out).rank


def test_lorahub_needs_equal_ranks(sources: list[Path], out: Path) -> None:
    with pytest.raises(InvalidMixture, match="ranks"):
        mix(Method("lorahub"), pairs([1, 1, 1], sources), out)
    assert list(out.iterdir()) == []


def test_adapters_of_different_bases(sources: list[Path], out: Path, tmp_path: Path) -> None:
    foreign = normal_form(small_adapter(tmp_path / "small"), tmp_path / "foreign")
    with pytest.raises(
        InvalidMixture, match=r"q_proj has different shapes .*\(8, 8\) and \(32, 32\): only adapters of one"
    ):
        mix(EXACT, [(1.0, sources[0]), (1.0, foreign)], out)


def test_a_damaged_source(sources: list[Path], out: Path) -> None:
    weights = sources[0] / FILES[1]
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(DamagedBlob, match="truncated"):
        mix(EXACT, pairs([1, 1], sources[:2]), out)


def test_a_mixture_can_be_made_in_memory_and_written_under_other_paths(
    sources: list[Path], out: Path, tmp_path: Path
) -> None:
    given = pairs([1.0, 0.5, -0.5], sources)
    mixed = mixed_modules(parse_method("svd(rank=2)"), given, limit=Limit(2))
    assert mixed.task_type == "CAUSAL_LM"
    outcome = write_mixed({f"expert.{path}": each for path, each in mixed.modules.items()}, out, mixed.task_type)
    at_once = tmp_path / "at-once"
    at_once.mkdir()
    assert outcome == mix(parse_method("svd(rank=2)"), given, at_once)
    there = dense(at_once)
    assert {path: update.tolist() for path, update in dense(out).items()} == {
        f"expert.{path}": update.tolist() for path, update in there.items()
    }


def test_adapters_of_different_types_make_one_of_none(
    sources: list[Path], out: Path, make_adapter: MakeAdapter
) -> None:
    other = normal_form(make_adapter("other", task_type="FEATURE_EXTRACTION"), out.parent / "other-type")
    mixed = mixed_modules(EXACT, [(1.0, sources[0]), (1.0, other)])
    assert mixed.task_type is None
    assert write_mixed(mixed.modules, out, None) == Outcome(8, 0.0)
    assert read_manifest(out).task_type is None
