from collections import Counter

import pytest

from tests.bench.popularity import drawn, uniform, zipf


def test_shares_sum_to_one() -> None:
    assert sum(zipf(1000)) == pytest.approx(1)
    assert sum(uniform(1000)) == pytest.approx(1)
    assert zipf(1) == uniform(1) == [1]


def test_zipf_s_law() -> None:
    shares = zipf(100)
    assert shares[0] / shares[9] == pytest.approx(10)
    asked = Counter(drawn(shares, 20_000, seed=0))
    assert asked[0] / asked[1] == pytest.approx(2, rel=0.1)


def test_uniform_asks_for_all() -> None:
    asked = Counter(drawn(uniform(100), 20_000, seed=0))
    assert asked.keys() == set(range(100))
    assert max(asked.values()) < 2 * min(asked.values())


def test_a_seed_draws_the_same_again() -> None:
    first, second, third = (drawn(zipf(100), 50, seed) for seed in (1, 1, 2))
    assert first == second != third
