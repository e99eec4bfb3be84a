"""How much of a limit per minute has been used: a token bucket.

A bucket is full at first and refilled evenly, so whoever has rested may use a minute's worth at once, and then as
much as comes back: within any one minute up to twice the limit, over an hour the limit. That is how OpenAI's and
Anthropic's own limits work, and what the headers that tell of them mean.
"""

import sys
from functools import lru_cache

from pyrate_limiter import Duration, Rate, TokenBucket

from loraloom.server.errors import InvalidSettings

_STEPS = TokenBucket()


class Bucket:
    """What one key has used of one limit per minute.

    All that is kept is the moment at which the bucket will be full again, so it is of one size whatever passes, and
    a limit that changes while it is in use leaves this moment where it is. The steps are pure functions of the
    library, so looking takes nothing. Rates are rounded to whole microseconds for each unit, on the strict side:
    by less than 2% up to a million a minute.
    """

    def __init__(self) -> None:
        self._state: tuple[float, ...] = (0,)

    def wait(self, limit: int, amount: int, held: int, now: int) -> float | None:
        """How long until an amount fits.

        Args:
            limit: per minute, of the same unit as the amounts.
            amount: what somebody wants to use.
            held: what others are about to use.
            now: milliseconds of a clock that never goes back.

        Returns:
            Seconds, 0 if it fits now; None if it never will, because it is more than the limit.
        """
        if amount > limit or limit < 1:
            return None
        _, decision = _STEPS.step(_rates(limit)[0], self._with(held, limit, now), now, amount)
        return (decision.retry_after_ms or 0) / 1000

    def use(self, limit: int, amount: int, now: int) -> None:
        """Take an amount out, whether or not it is there: what is missing must come back first."""
        self._state = self._with(amount, limit, now)

    def left(self, limit: int, held: int, now: int) -> int:
        """What could be used now."""
        return max(0, limit - held - _STEPS.consumed(_rates(limit)[0], self._state, now))

    def full_in(self, limit: int, held: int, now: int) -> float:
        """Seconds until everything would be there again, what others hold included."""
        return max(0.0, self._with(held, limit, now)[0] / 1000 - now) / 1000

    def _with(self, amount: int, limit: int, now: int) -> tuple[float, ...]:
        """The state with an amount taken out, whether or not it is there."""
        if not amount:
            return self._state
        state, _ = _STEPS.step(_rates(limit)[1], self._state, now, amount)
        return state

    def full(self, now: int) -> bool:
        """Whether nothing of it is in use, so that it is like a new one."""
        return self._state[0] <= now * 1000


@lru_cache(maxsize=1024)
def _rates(limit: int) -> tuple[list[Rate], list[Rate]]:
    """A limit as the library takes it: as it is, and for what is used in any case."""
    if limit < 1:
        raise InvalidSettings(f"a limit per minute is at least 1, not {limit}; leave it out for none")
    return [Rate(limit, Duration.MINUTE)], [Rate(limit, Duration.MINUTE, burst=sys.maxsize)]
