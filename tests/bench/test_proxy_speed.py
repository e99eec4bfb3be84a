from pathlib import Path

import pytest

from tests.bench.arrivals import Stream, arrivals
from tests.bench.load import Answer
from tests.bench.proxy_contenders import ABOUT, ALONE, PROXY, PUBLISHED, Couple
from tests.bench.proxy_speed import FULL, SHORT, Plan, batch_time, requests, turns

COUPLE = Couple(Path("small"), {"a": Path("a"), "b": Path("b")})


def test_a_batch_takes_until_its_last_token() -> None:
    early, late = Answer("abc", 0.0, (1.0, 2.0, 3.0)), Answer("abc", 0.1, (2.0, 9.0))  # two tokens came as one
    time = batch_time([early, late], 3)
    assert (time.first, time.step, time.total) == (2.0, pytest.approx(3.5), 9.0)


@pytest.mark.parametrize("plan", [SHORT, FULL])
def test_all_that_goals_and_ratios_need_is_measured(plan: Plan) -> None:
    assert set(plan.batches) == set(ABOUT)
    assert all(set(sizes) <= set(plan.batches[ALONE]) for sizes in plan.batches.values())
    assert {1, 8} <= set(plan.batches[PROXY])
    assert plan.stream.concurrent == 8


def test_batches_of_one_size_follow_each_other_and_every_other_round_goes_backward() -> None:
    order = turns({"one": (1, 8), "two": (1, 8)}, 0)
    assert order == [("one", 1), ("two", 1), ("one", 8), ("two", 8)]
    assert turns({"one": (1, 8), "two": (1, 8)}, 1) == order[::-1]


def test_traffic_is_the_same_for_all_but_for_what_is_asked() -> None:
    coming = arrivals(3, Stream(requests=7), range(10, 20))
    lengths = [(each.at, each.prompt, each.tokens) for each in coming]
    for name in ABOUT:
        asked = requests(coming, name, COUPLE)
        assert [(each.at, each.prompt, each.tokens) for each in asked] == lengths
    assert [each.model for each in requests(coming, PUBLISHED, COUPLE)] == [COUPLE.model(PROXY, n) for n in range(7)]
