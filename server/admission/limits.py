"""The limits of each key: requests per minute, tokens per minute, requests at a time.

They are limits of one server process: behind a balancer with N of them, a key may use up to N times as much.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from loraloom.server.access.access import Access, Quota
from loraloom.server.admission.bucket import Bucket
from loraloom.server.errors import LimitExceeded

Clock = Callable[[], float]
"""Seconds of a clock that never goes back: one that can be set would lock keys out, or let them in twice."""

WITHOUT = Quota()
REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")
"""OpenAI's headers: the limit, what is left of it, and when all of it will be there again."""
ENDS_SOON = 1.0
"""Seconds after which to try again when too many requests run: nobody knows when one of them will end."""
_SWEEP = 1024
"""Keys after which those that have used nothing for a while are forgotten."""


@dataclass(eq=False)
class _Meter:
    """What one key uses; it is kept by the key's name, so a change of its quota does not reset it.

    Attributes:
        requests, tokens: used of what it may use per minute.
        reserved: tokens that its requests may still take.
        running: its requests now.
    """

    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    reserved: int = 0
    running: int = 0

    def idle(self, now: int) -> bool:
        """Whether forgetting it changes nothing."""
        return not self.running and self.requests.full(now) and self.tokens.full(now)


class Allowance:
    """What one request was allowed to take; without a limit there is nothing to count."""

    def reserve(self, tokens: int) -> None:
        """Keep tokens for it that it may take, once it is known how many; raises `LimitExceeded`."""

    def spend(self, prompt: int, output: int) -> None:
        """Count tokens that have been computed since it was last told."""


class _Counted(Allowance):
    """An allowance for tokens: what is computed replaces what was reserved, and the rest is given back."""

    def __init__(self, meter: _Meter, access: Access, limit: int, clock: Clock) -> None:
        self._meter = meter
        self._access = access
        self._limit = limit
        self._reserved = 0
        self._clock = clock

    def reserve(self, tokens: int) -> None:
        now = _milliseconds(self._clock)
        if (wait := self._meter.tokens.wait(self._limit, tokens, self._meter.reserved, now)) != 0:
            _refuse_tokens(self._access, tokens, wait)
        self._reserved += tokens
        self._meter.reserved += tokens

    def spend(self, prompt: int, output: int) -> None:
        self._meter.tokens.use(self._limit, prompt + output, _milliseconds(self._clock))
        self._give_back(min(self._reserved, prompt + output))

    def close(self) -> None:
        """Give back what was not needed."""
        self._give_back(self._reserved)

    def _give_back(self, tokens: int) -> None:
        self._reserved -= tokens
        self._meter.reserved -= tokens


UNLIMITED = Allowance()


class Limits:
    """Counts what each key uses, and refuses what is too much."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        """
        Args:
            clock: seconds of a clock that never goes back.
        """
        self._clock = clock
        self._meters: dict[str, _Meter] = {}
        self._sweep_at = _SWEEP

    @contextmanager
    def counted(self, access: Access) -> Iterator[Allowance]:
        """Count a request for as long as it runs.

        What it may take is not known before its body is read, so `Allowance.reserve` is for later.

        Args:
            access: whose it is, with the quota.

        Raises:
            LimitExceeded: it is one too many; it was not counted.
        """
        quota = access.quota
        if quota == WITHOUT:
            yield UNLIMITED
            return
        meter = self._meter(access.key)
        self._check(access, meter)
        meter.running += 1
        if quota.rpm is not None:
            meter.requests.use(quota.rpm, 1, self._now)
        allowance = None if quota.tpm is None else _Counted(meter, access, quota.tpm, self._clock)
        try:
            yield allowance or UNLIMITED
        finally:
            meter.running -= 1
            if allowance:
                allowance.close()

    def headers(self, access: Access) -> list[tuple[bytes, bytes]]:
        """What is left of a key's limits per minute, in OpenAI's headers; none for what is without limit."""
        quota, meter, now = access.quota, self._meters.get(access.key) or _Meter(), self._now
        headers: list[tuple[bytes, bytes]] = []
        for names, limit, bucket, held in (
            (REQUESTS, quota.rpm, meter.requests, 0),
            (TOKENS, quota.tpm, meter.tokens, meter.reserved),
        ):
            if limit is not None:
                left, full_in = bucket.left(limit, held, now), duration(bucket.full_in(limit, held, now))
                headers += zip(names, (b"%d" % limit, b"%d" % left, full_in.encode()), strict=True)
        return headers

    @property
    def _now(self) -> int:
        return _milliseconds(self._clock)

    def _meter(self, key: str) -> _Meter:
        meter = self._meters.get(key)
        if meter is None:
            if len(self._meters) >= self._sweep_at:
                self._sweep()
            meter = self._meters[key] = _Meter()
        return meter

    def _sweep(self) -> None:
        now = self._now
        self._meters = {key: meter for key, meter in self._meters.items() if not meter.idle(now)}
        self._sweep_at = max(_SWEEP, 2 * len(self._meters))

    def _check(self, access: Access, meter: _Meter) -> None:
        """Raise `LimitExceeded` if there are as many requests as may be, at a time or in a minute."""
        quota, now = access.quota, self._now
        if quota.concurrency is not None and meter.running >= quota.concurrency:
            _refuse_one_more(access)
        if quota.rpm is not None and (wait := meter.requests.wait(quota.rpm, 1, 0, now)) != 0:
            _refuse_request(access, wait)


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: `20ms`, `1s`, `8.64s`, `6m0s`."""
    milliseconds = round(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    front = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{front}{milliseconds / 1000:g}s"


def _milliseconds(clock: Clock) -> int:
    return round(clock() * 1000)


def _refuse_one_more(access: Access) -> NoReturn:
    raise LimitExceeded(
        f"key {access.key!r} may have {access.quota.concurrency} requests at a time, and they are running: try again "
        "when one has ended",
        "concurrency",
        ENDS_SOON,
    )


def _refuse_request(access: Access, wait: float | None) -> NoReturn:
    advice = "ask the administrator for more" if wait is None else f"try again in {duration(wait)}"
    raise LimitExceeded(
        f"key {access.key!r} may send {access.quota.rpm} requests per minute, and has sent them: {advice}",
        "requests",
        wait,
    )


def _refuse_tokens(access: Access, estimate: int, wait: float | None) -> NoReturn:
    limit = f"key {access.key!r} may use {access.quota.tpm} tokens per minute"
    if wait is None:
        message = (
            f"this request may take {estimate} tokens, and {limit}: ask for fewer tokens by `max_tokens` (or "
            "`max_completion_tokens`, `max_output_tokens`), or send a shorter prompt"
        )
    else:
        message = f"{limit}; this request may take {estimate}, which will be free in {duration(wait)}: try again then"
    raise LimitExceeded(message, "tokens", wait)
