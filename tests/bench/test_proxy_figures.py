from pathlib import Path
from typing import Any

import pytest

from tests.bench.outcome import Outcome
from tests.bench.peft_batches import BatchTime
from tests.bench.proxy_contenders import ALONE, PLAIN, PROXY, PUBLISHED, TWO
from tests.bench.proxy_figures import TRAFFIC, Samples, bounds, summed_up
from tests.gpu.models import TINY, Shape, write_dummy

HALF = Shape(128, 352, 1, 4, 2, 512)
"""As the tiny model, with one layer of its two."""
SECONDS = {ALONE: 1.0, PROXY: 2.0, PLAIN: 1.9, TWO: 2.5, PUBLISHED: 6.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return write_dummy(folder / "large", TINY), write_dummy(folder / "small", HALF)


def outcome(models: tuple[Path, Path], gain: float | None = 2.0, **changed: float) -> Outcome:
    """Of three rounds, in each of which the machine is slower than in the last."""
    seconds = SECONDS | changed
    times = {
        (name, size): [BatchTime(0.1, 0.01, size * slow * each) for slow in (1, 2, 4)]
        for name, each in seconds.items()
        for size in (8, 1)
        if (name, size) != (TWO, 8)
    }
    traffic = {name: [100 / each / slow for slow in (1, 2, 4)] for name, each in seconds.items()}
    return summed_up(Samples(64, times, traffic), *models, gain)


def test_the_bounds_are_of_bytes_and_of_operations(models: tuple[Path, Path]) -> None:
    table, layer = 512 * 128, 2 * 128 * (4 + 2) * 32 + 3 * 128 * 352
    large, small = 2 * layer + table, layer + table
    found = bounds(*models)
    assert found.once == pytest.approx((large + small) / large)
    assert found.twice == found.operations == pytest.approx((large + 2 * small) / large)


def test_ratios_are_of_the_same_round(models: tuple[Path, Path]) -> None:
    results: Any = outcome(models).results
    assert results["tokens_per_second"]["batch 1"][PROXY] == 16
    cost, gain = results["cost"], results["gain"]
    assert cost[PROXY]["batch 8"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert set(cost[TWO]) == {"batch 1", TRAFFIC}
    assert gain[f"over {TWO}"]["batch 1"]["value"] == 1.25
    assert gain[f"over {PUBLISHED}"][TRAFFIC]["value"] == pytest.approx(3)


def test_the_goals_follow_the_figures(models: tuple[Path, Path]) -> None:
    limit = 1.15 * bounds(*models).twice
    assert [goal.met for goal in outcome(models, proxy=limit - 0.01).goals] == [True, True]
    assert [goal.met for goal in outcome(models, proxy=limit + 0.01).goals] == [False, True]
    assert [goal.met for goal in outcome(models, published=3.9).goals] == [True, False]
    assert outcome(models, gain=None).goals == ()
    assert any("lower bound" in note for note in outcome(models).notes)


def test_the_table_has_a_row_for_each_load_of_each(models: tuple[Path, Path]) -> None:
    rows = [row[0] for row in outcome(models).table.rows]
    assert len(rows) == 14
    assert [row.split(":")[0] for row in rows] == ["batch 1"] * 5 + ["batch 8"] * 4 + [TRAFFIC] * 5
