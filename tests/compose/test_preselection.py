"""Which adapters of a large pool a search may use."""

from pathlib import Path

import pytest

from loraloom.compose import preselection
from loraloom.compose.errors import DamagedJob
from loraloom.compose.preselection import picks
from tests.compose.fakes import BowlBackend, bowl_plan

# Adapter 2 is what every example wants, adapter 0 what the first three want too, adapter 1 what the last wants.
BEST = [(0.9, 0.0, 1.0, 0.0)] * 3 + [(0.0, 5.0, 1.0, 0.0)]


@pytest.mark.parametrize("by", ["score", "similarity"])
def test_those_that_do_best_are_kept_in_the_pools_order(tmp_path: Path, by: str) -> None:
    plan = bowl_plan(4, 4, holdout=0.25, pool={"preselect": 2, "by": by})
    (held,) = plan.holdout.folds[0].held
    (kept,) = picks(BowlBackend(BEST), plan, tmp_path / "preselection.json")
    assert kept == ((0, 2) if held == 3 else (1, 2))


def test_each_search_chooses_by_what_it_sees(tmp_path: Path) -> None:
    plan = bowl_plan(4, 4, holdout="leave-one-out", pool={"preselect": 2})
    kept = picks(BowlBackend(BEST), plan, tmp_path / "preselection.json")
    assert kept == [(1, 2), (1, 2), (1, 2), (1, 2), (0, 2)]


def test_without_it_all_may_be_used(tmp_path: Path) -> None:
    backend = BowlBackend(BEST)
    for fields in ({}, {"pool": {"preselect": 4}}):
        plan = bowl_plan(4, 4, holdout=0.25, **fields)
        assert picks(backend, plan, tmp_path / "preselection.json") == [(0, 1, 2, 3)]
    assert backend.asked == []


def test_they_are_compared_once(tmp_path: Path) -> None:
    plan, path = bowl_plan(4, 4, holdout=0.25, pool={"preselect": 2}), tmp_path / "preselection.json"
    backend = BowlBackend(BEST)
    assert picks(backend, plan, path) == picks(backend, plan, path)
    assert len(backend.asked) == 1
    with pytest.raises(DamagedJob, match="other adapters"):
        picks(backend, bowl_plan(4, 3, holdout=0.25, pool={"preselect": 2}), path)


def test_a_large_pool_is_held_in_memory_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = bowl_plan(4, 4, holdout=0.25, pool={"preselect": 2})
    whole = picks(BowlBackend(BEST), plan, tmp_path / "whole.json")
    monkeypatch.setattr(preselection, "AT_ONCE", 3)
    backend = BowlBackend(BEST)
    assert picks(backend, plan, tmp_path / "parts.json") == whole
    assert backend.asked == [("0@1", "1@1", "2@1"), ("3@1",)]
