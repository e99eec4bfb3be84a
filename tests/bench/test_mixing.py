from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loraloom.adapters.methods import EXACT, Method
from tests.bench import mixing
from tests.bench.mixing import ABOVE_LEAST, EXACTLY, MIXED, WIDE, Case, cases, error, goal, in_turns, measured, svd_to
from tests.bench.peft_mixing import Adapted, Adapter

SHAPES = {"model_layers_0_q_proj": (24, 20), "model_layers_0_down_proj": (16, 28), "model_layers_1_q_proj": (24, 20)}
SMALL = (Adapter(3, 0.6), Adapter(2, -0.4), Adapter(3, 0.5, rslora=True))


@pytest.mark.parametrize("adapters", [SMALL, SMALL[::-1]])
def test_ours_is_right_whichever_adapter_comes_first(adapters: tuple[Adapter, ...]) -> None:
    found = measured(Case("", SHAPES, adapters, EXACT, "cat"), rounds=2)
    assert 0 < found.error <= EXACTLY
    assert len(found.ours) == len(found.theirs) == 2
    cut = measured(Case("", SHAPES, adapters, svd_to(2), "svd"), rounds=1)
    assert abs(cut.error - cut.least) <= ABOVE_LEAST
    assert cut.least > 100 * ABOVE_LEAST, "the goal would be met by anything"


def test_peft_is_right_where_it_can_be_so_it_is_asked_as_it_should_be() -> None:
    plain = (Adapter(3, 0.6), Adapter(2, 0.4))
    exactly = measured(Case("", SHAPES, plain, EXACT, "cat"), rounds=1)
    cut = measured(Case("", SHAPES, plain, svd_to(2), "svd"), rounds=1)
    assert exactly.their_error == pytest.approx(0, abs=EXACTLY)
    assert cut.their_error == pytest.approx(cut.least, abs=ABOVE_LEAST)


def test_what_peft_refuses_is_told_and_not_timed() -> None:
    found = measured(Case("", SHAPES, SMALL, EXACT, "linear"), rounds=1)
    assert found.refusal is not None
    assert (found.theirs, found.their_error) == ([], None)
    assert found.error <= EXACTLY


def test_the_least_error_is_that_of_the_dense_updates() -> None:
    adapted = Adapted.random(SHAPES, SMALL)
    dense = [torch.linalg.svdvals(adapted.written_out(name)) for name in SHAPES]
    left_out, whole = (sum(float(each[first:].square().sum()) for each in dense) for first in (2, 0))
    least = mixing.error_least({name: adapted.terms(name) for name in SHAPES}, 2)
    assert least == pytest.approx((left_out / whole) ** 0.5, rel=1e-6)


def test_an_error_is_relative_and_over_all_modules() -> None:
    adapted = Adapted.random(SHAPES, SMALL)
    nothing = {name: replace(each, b=0 * each.b) for name in SHAPES for each in [adapted.terms(name)[0].factors]}
    assert error(adapted, nothing) == pytest.approx(1)


@pytest.mark.parametrize("method", [EXACT, svd_to(2)])
def test_a_wrong_mixture_misses_the_goal(method: Method) -> None:
    case = Case("", SHAPES, SMALL, method)
    found = measured(case, rounds=1)
    assert goal(case, found).met
    assert not goal(case, replace(found, error=found.error + 0.001)).met


def test_the_sides_take_turns_to_begin() -> None:
    order: list[str] = []
    times = in_turns([lambda: order.append("ours"), lambda: order.append("theirs")], 3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [len(each) for each in times] == [3, 3]


def test_the_cases_are_as_wide_as_they_say() -> None:
    assert sum(adapter.rank for adapter in WIDE) == 320
    for adapters in (MIXED, WIDE):
        assert any(adapter.rslora for adapter in adapters)
        assert any(adapter.weight < 0 for adapter in adapters)
    short, full = (list(cases(SHAPES, full)) for full in (False, True))
    assert short == full[: len(short)]
    assert all(case.shapes.keys() == {n for n in SHAPES if "_0_" in n} for case in short if "demo layer" in case.about)


def test_the_outcome_tells_of_every_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = [Case("cat", SHAPES, SMALL, EXACT, "cat"), Case("linear", SHAPES, SMALL, EXACT, "linear")]
    monkeypatch.setattr(mixing, "cases", lambda demo, full: few)
    monkeypatch.setattr(mixing, "LAYER", SHAPES)
    monkeypatch.setattr(mixing, "demo_shapes", lambda: SHAPES)
    monkeypatch.setattr(mixing, "FULL_ROUNDS", 1)
    outcome = mixing.run(tmp_path, full=True)
    assert [row[0] for row in outcome.table.rows] == ["cat", "linear"]
    assert any("same r" in note for note in outcome.notes)
    assert any("32 layers" in key for key in outcome.results)
    assert len(outcome.goals) == 2
