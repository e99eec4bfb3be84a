import random

import pytest

from tests.bench.growth import growth, rise, slope

MINUTES = [float(minute) for minute in range(41)]


def test_the_trend_is_told_in_units_of_the_values() -> None:
    assert slope(MINUTES, [700 + 0.5 * minute for minute in MINUTES]) == pytest.approx(0.5)


def test_a_few_values_far_off_do_not_matter() -> None:
    values = [700.0 + random.Random(0).random()] * 41
    values[7] = values[33] = 2000.0
    assert growth(MINUTES, values) == pytest.approx(0, abs=0.01)


def test_only_the_second_half_counts() -> None:
    warmed = [min(minute, 20.0) * 30 for minute in MINUTES]
    assert growth(MINUTES, warmed) == 0
    assert growth(MINUTES, [*warmed[:21], *(600 + 2 * minute for minute in range(1, 21))]) == pytest.approx(40)


def test_steps_of_a_slow_leak_are_seen() -> None:
    assert growth(MINUTES, [10 + minute // 4 for minute in MINUTES]) == pytest.approx(5, abs=0.5)


def test_one_time_shows_no_trend() -> None:
    with pytest.raises(ValueError, match="two times"):
        slope([1.0, 1.0], [1.0, 2.0])


def test_a_rise_is_of_the_highest_values() -> None:
    assert rise(MINUTES, [700.0] * 41) == 0
    assert rise(MINUTES, [750.0, *[700.0] * 29, 780.0, *[700.0] * 10]) == 30
    assert rise(MINUTES, [790.0, *[700.0] * 29, 780.0, *[700.0] * 10]) == -10
