"""The limits of each key."""

import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from loraloom.server.access.access import Access, Quota, Role
from loraloom.server.admission import limits as module
from loraloom.server.admission.limits import UNLIMITED, Limits, duration
from loraloom.server.errors import LimitExceeded
from tests.server.admission.simulated import FakeClock


def key(name: str = "k", rpm: int | None = None, tpm: int | None = None, concurrency: int | None = None) -> Access:
    return Access(name, Role.INFER, quota=Quota(rpm, tpm, concurrency))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def limits(clock: FakeClock) -> Limits:
    return Limits(clock)


def spend(limits: Limits, access: Access, tokens: int = 0) -> None:
    with limits.counted(access) as allowance:
        allowance.reserve(tokens)
        allowance.spend(tokens, 0)


def refused(limits: Limits, access: Access, tokens: int = 0) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught, limits.counted(access) as allowance:
        allowance.reserve(tokens)
    return caught.value


def test_a_key_without_limits_is_not_counted(limits: Limits) -> None:
    with limits.counted(key()) as allowance:
        allowance.reserve(10**9)
        allowance.spend(10**9, 10**9)
    assert allowance is UNLIMITED
    assert limits.headers(key()) == []


def test_so_many_requests_per_minute_and_no_more(limits: Limits, clock: FakeClock) -> None:
    for _ in range(3):
        spend(limits, key(rpm=3))
    error = refused(limits, key(rpm=3))
    assert (error.limit, error.retry_after) == ("requests", 20)
    assert "3 requests per minute" in str(error)
    spend(limits, key("other", rpm=3))
    clock.now += 20
    spend(limits, key(rpm=3))
    refused(limits, key(rpm=3))


def test_so_many_requests_at_a_time_and_no_more(limits: Limits) -> None:
    access = key(concurrency=2)
    with limits.counted(access), limits.counted(access):
        error = refused(limits, access)
        assert (error.limit, error.retry_after) == ("concurrency", module.ENDS_SOON)
    spend(limits, access)


def test_a_request_that_fails_runs_no_more(limits: Limits) -> None:
    access = key(concurrency=1, tpm=100)

    def fail() -> None:
        with limits.counted(access) as allowance:
            allowance.reserve(100)
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            fail()
    spend(limits, access, 100)


def test_tokens_are_reserved_and_what_is_not_needed_is_given_back(limits: Limits) -> None:
    access = key(tpm=600)
    with limits.counted(access) as allowance:
        allowance.reserve(400)
        error = refused(limits, access, 300)
        assert (error.limit, error.retry_after) == ("tokens", 10)
        spend(limits, access, 200)
        allowance.spend(10, 40)
        assert dict(limits.headers(access))[b"x-ratelimit-remaining-tokens"] == b"0"
    assert dict(limits.headers(access))[b"x-ratelimit-remaining-tokens"] == b"350"
    spend(limits, access, 350)


def test_what_a_request_takes_beyond_its_estimate_counts_too(limits: Limits, clock: FakeClock) -> None:
    access = key(tpm=600)
    with limits.counted(access) as allowance:
        allowance.reserve(10)
        for _ in range(9):
            allowance.spend(0, 100)
    assert refused(limits, access, 1).retry_after == pytest.approx(30.1)
    clock.now += 30.1
    spend(limits, access, 1)


def test_more_tokens_than_the_limit_are_refused_for_good_with_what_to_do(limits: Limits) -> None:
    error = refused(limits, key(tpm=100), 101)
    assert error.retry_after is None
    assert "101 tokens" in str(error)
    assert "max_tokens" in str(error)


def test_a_key_that_has_used_its_tokens_may_still_ask_for_what_computes_none(limits: Limits) -> None:
    spend(limits, key(tpm=100), 100)
    refused(limits, key(tpm=100), 1)
    spend(limits, key(tpm=100), 0)


def test_what_is_refused_takes_none_of_what_it_was_refused_for(limits: Limits) -> None:
    access = key(rpm=7, tpm=100, concurrency=1)
    for _ in range(5):
        refused(limits, access, 101)
    spend(limits, access, 100)
    assert dict(limits.headers(access))[b"x-ratelimit-remaining-requests"] == b"1"
    spend(limits, access)
    for _ in range(5):
        assert refused(limits, access).limit == "requests"
    assert dict(limits.headers(access))[b"x-ratelimit-remaining-requests"] == b"0"


def test_a_change_of_the_quota_does_not_forget_what_was_used(limits: Limits) -> None:
    spend(limits, key(rpm=1))
    refused(limits, key(rpm=1))
    spend(limits, key())
    refused(limits, key(rpm=1))
    with limits.counted(key(concurrency=5)):
        refused(limits, key(concurrency=1))


def test_the_headers_are_those_of_openai_for_the_limits_that_there_are(limits: Limits) -> None:
    access = key(rpm=60, tpm=6000)
    with limits.counted(access) as allowance:
        allowance.reserve(1000)
        allowance.spend(200, 0)
        assert limits.headers(access) == [
            (b"x-ratelimit-limit-requests", b"60"),
            (b"x-ratelimit-remaining-requests", b"59"),
            (b"x-ratelimit-reset-requests", b"1s"),
            (b"x-ratelimit-limit-tokens", b"6000"),
            (b"x-ratelimit-remaining-tokens", b"5000"),
            (b"x-ratelimit-reset-tokens", b"10s"),
        ]
    assert [name for name, _ in limits.headers(replace(access, quota=Quota(tpm=5)))] == [
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    ]
    assert limits.headers(key(concurrency=1)) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.02, "20ms"),
        (0.9999, "1s"),
        (8.64, "8.64s"),
        (59.999, "59.999s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3723.5, "1h2m3.5s"),
    ],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_wall_clock_that_is_set_locks_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, access, now = Limits(), key(rpm=1), time.time()
    spend(limits, access)
    for jump in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        retry_after = refused(limits, access).retry_after
        assert retry_after is not None
        assert 0 < retry_after <= 60


def test_keys_that_rest_are_forgotten_and_no_others(
    limits: Limits, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept does not grow with the keys that ever asked."""
    used = key("used", rpm=1)
    with ExitStack() as held:
        held.enter_context(limits.counted(key("running", concurrency=1)))
        for number in range(5000):
            clock.now += 1
            spend(limits, key(f"k{number}", rpm=60))
        spend(limits, used)
        for number in range(1500):
            spend(limits, key(f"l{number}", rpm=10**6))
        refused(limits, used)
        refused(limits, key("running", concurrency=1))
    assert len(limits._meters) < 4000
