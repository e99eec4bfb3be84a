from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from tests.bench import edge_cpu
from tests.bench.asgi import Request, stub
from tests.bench.edge_cpu import BARE, KINDS, Trial, gate, measured
from tests.bench.edge_store import TAG, filled, names, used_names
from tests.bench.errors import InvalidRun
from tests.bench.estimate import Estimate

SIZE = 9


def test_every_kind_is_measured_with_and_without_the_gate(tmp_path: Path) -> None:
    shared = gate(filled(tmp_path, SIZE))
    few = [replace(kind, count=len(used_names(SIZE))) for kind in KINDS]
    samples = uvloop.run(measured({SIZE: shared}, few, runs=1))
    assert samples.keys() == {kind.about for kind in KINDS}
    for of_kind in samples.values():
        assert of_kind.keys() == {BARE, f"{SIZE} names"}
        assert all(len(times) == 1 and times[0] > 0 for times in of_kind.values())
    assert all(shared.leases.resident(f"{name}@3") for name in used_names(SIZE))


def test_a_store_is_filled_once(tmp_path: Path) -> None:
    first = filled(tmp_path, SIZE)
    assert set(first.names()) == set(names(SIZE))
    records = {name: first.versions(name) for name in names(SIZE)}
    again = filled(tmp_path, SIZE)
    assert {name: again.versions(name) for name in names(SIZE)} == records
    assert all(again.tags(name) == {"latest": 3, TAG: 2} for name in used_names(SIZE))


def test_an_answer_of_another_status_is_no_figure() -> None:
    trial = Trial("bare", stub(pieces=1), [Request.chat(None, "base", turns=1)], status=404)
    with pytest.raises(InvalidRun, match="200"):
        uvloop.run(trial.run())


@pytest.mark.parametrize(("turns", "size"), [(5, 1_500), (400, 100_000)])
def test_a_body_arrives_whole_and_has_the_size_that_the_table_says(turns: int, size: int) -> None:
    request = Request.chat(None, "base", turns)
    assert size * 0.7 < sum(len(piece["body"]) for piece in request.body) < size * 1.3
    assert [piece["more_body"] for piece in request.body][-1] is False


def test_the_dearest_limited_kind_decides_about_each_goal() -> None:
    cheap, dear, huge = (Estimate(value, value, value) for value in (50.0, 90.0, 900.0))
    unlimited = next(kind.about for kind in KINDS if not kind.limited)
    limited = [kind.about for kind in KINDS if kind.limited]
    added = {about: {"10 names": cheap} for about in limited} | {unlimited: {"10 names": huge}}
    added[limited[-1]] = {"10 names": dear}
    (goal,) = edge_cpu.goals(added)
    assert (goal.value, goal.met) == (90.0, True)
    assert limited[-1] in goal.about
