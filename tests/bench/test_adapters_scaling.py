from pathlib import Path

import pytest

from tests.bench.adapters_scaling import ENGINE, SAME, Measured, Plan, _outcome, goals
from tests.bench.estimate import Estimate
from tests.bench.load import Answer, Load
from tests.bench.processes import Usage
from tests.bench.setup import Setup
from tests.bench.zoo_traffic import POPULARITIES


@pytest.mark.parametrize(
    ("low", "high", "met"),
    [(0.97, 1.03, [True, True]), (0.93, 1.03, [True, False]), (1.01, 1.03, [False, True]), (0.9, 0.94, [False, False])],
)
def test_the_interval_decides(low: float, high: float, met: list[bool]) -> None:
    assert [goal.met for goal in goals(Estimate((low + high) / 2, low, high))] == met


def measured(rate: float) -> Measured:
    answers = tuple(Answer("a", 0.0, (first / 1000,)) for first in range(1, 101))
    return Measured([Load(100 / rate, answers)] * 3, {"worker": Usage(900, 800, 700, 9, 8, 7)})


def test_figures_by_size() -> None:
    results = {(SAME, 10): measured(5), (SAME, 1000): measured(4.9)}
    results |= {(traffic, size): measured(4) for traffic in POPULARITIES for size in (10, 1000)}
    plan = Plan(((10, 1000),), pairs=3, rounds=3, warm=0)
    outcome = _outcome(results, plan, Setup(Path("model"), "float32", ENGINE), judged=True)
    assert outcome.table.rows[1] == ("8 in turn, 1,000", "4.90 [4.90, 4.90]", "50", "99", "800")
    assert [goal.met for goal in outcome.goals] == [False, True]
    assert _outcome(results, plan, Setup(Path("model"), "float32", ENGINE), judged=False).goals == ()
    (plot,) = outcome.plots
    assert {curve.label for curve in plot.panels[0].curves} == {"Zipf", "uniform"}
    assert all(curve.x == (10, 1000) for panel in plot.panels for curve in panel.curves)
