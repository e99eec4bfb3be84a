"""A limit per minute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.server.admission.bucket import Bucket
from loraloom.server.errors import InvalidSettings

NOW = 5_000_000


def test_a_minutes_worth_can_be_used_at_once_and_comes_back_evenly() -> None:
    bucket = Bucket()
    assert bucket.wait(60, 60, 0, NOW) == 0
    bucket.use(60, 60, NOW)
    assert bucket.wait(60, 1, 0, NOW) == 1
    assert bucket.wait(60, 30, 0, NOW + 10_000) == 20
    assert [bucket.left(60, 0, NOW + seconds * 1000) for seconds in (0, 1, 30, 60, 3600)] == [0, 1, 30, 60, 60]


def test_looking_takes_nothing() -> None:
    bucket = Bucket()
    for _ in range(5):
        assert bucket.wait(10, 10, 0, NOW) == 0
    assert bucket.full(NOW)
    assert bucket.left(10, 0, NOW) == 10


def test_what_others_hold_is_not_there() -> None:
    bucket = Bucket()
    bucket.use(60, 20, NOW)
    assert bucket.left(60, 30, NOW) == 10
    assert bucket.wait(60, 10, 30, NOW) == 0
    assert bucket.wait(60, 15, 30, NOW) == 5
    assert bucket.full_in(60, 30, NOW) == 50
    assert bucket.full_in(60, 0, NOW) == 20


def test_what_is_used_beyond_the_limit_must_come_back_first() -> None:
    bucket = Bucket()
    bucket.use(60, 90, NOW)
    assert bucket.left(60, 0, NOW) == 0
    assert bucket.wait(60, 1, 0, NOW) == 31
    assert not bucket.full(NOW + 89_999)
    assert bucket.full(NOW + 90_000)


@pytest.mark.parametrize(("limit", "amount"), [(10, 11), (0, 1)])
def test_what_is_more_than_the_limit_never_fits(limit: int, amount: int) -> None:
    assert Bucket().wait(limit, amount, 0, NOW) is None


def test_a_limit_that_changes_leaves_the_time_until_the_bucket_is_full() -> None:
    bucket = Bucket()
    bucket.use(60, 30, NOW)
    assert bucket.full_in(600, 0, NOW) == 30
    assert bucket.left(600, 0, NOW) == 300


def test_nothing_can_be_used_of_no_limit() -> None:
    with pytest.raises(InvalidSettings):
        Bucket().use(0, 1, NOW)


@given(
    limit=st.integers(1, 10**6),
    uses=st.lists(st.tuples(st.integers(0, 90_000), st.floats(0, 1)), max_size=30),
)
def test_after_the_wait_an_amount_fits_and_no_more_passes_than_the_limit_allows(
    limit: int, uses: list[tuple[int, float]]
) -> None:
    bucket, now, passed = Bucket(), NOW, 0
    for pause, share in uses:
        now += pause
        amount = max(1, int(share * limit))
        wait = bucket.wait(limit, amount, 0, now)
        assert wait is not None
        now += round(wait * 1000)
        assert bucket.wait(limit, amount, 0, now) == 0
        bucket.use(limit, amount, now)
        passed += amount
        assert passed <= limit * (1 + (now - NOW) / 60_000) + 1
