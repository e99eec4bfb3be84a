"""Intervals of shares."""

import random

import pytest

from loraloom.server.proxy.evaluation.interval import Share, mean, wilson


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right: int, count: int, low: float, high: float) -> None:
    share = wilson(right, count)
    assert share.value == right / count
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)


def test_all_and_none_are_at_the_ends() -> None:
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


def test_the_mean_of_one_is_itself_and_of_more_is_narrower() -> None:
    one = wilson(30, 100)
    same = mean([one])
    assert (same.value, same.low, same.high) == pytest.approx((one.value, one.low, one.high))
    four = mean([one] * 4)
    assert four.value == pytest.approx(0.3)
    assert four.value - four.low == pytest.approx((one.value - one.low) / 2)
    assert four.high - four.value == pytest.approx((one.high - one.value) / 2)


def test_the_interval_of_a_mean_covers_it_nineteen_times_in_twenty() -> None:
    source, chances, hits = random.Random(0), (0.02, 0.4, 0.7, 0.95), 0
    truth = sum(chances) / len(chances)
    for _ in range(400):
        drawn = mean([wilson(sum(source.random() < chance for _ in range(50)), 50) for chance in chances])
        hits += drawn.low <= truth <= drawn.high
    assert 0.92 <= hits / 400 <= 0.99


def test_a_share_stays_within_its_bounds() -> None:
    assert mean([Share(1.0, 0.5, 1.0), Share(1.0, 0.5, 1.0)]).high == 1.0
