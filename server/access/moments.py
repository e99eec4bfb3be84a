"""Moments and spans of time, as people write them and as records keep them."""

import re
from datetime import UTC, datetime

from loraloom.server.errors import InvalidSettings

_SECONDS = {"m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
_SPAN = re.compile(r"([0-9]{1,6})([mhd])")


def text_of(moment: float) -> str:
    """Seconds since 1970 as UTC, ISO 8601, in whole seconds: `2026-12-31T00:00:00Z`; raises `InvalidSettings`."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError) as error:
        raise InvalidSettings("a moment after the year 9999 is too far away: write an earlier one") from error


def moment_of(text: str) -> float:
    """ISO 8601 as seconds since 1970; without a time it is midnight, and without a zone it is UTC.

    Raises:
        ValueError: it is something else.
    """
    moment = datetime.fromisoformat(text)
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from error


def span_of(text: str) -> int:
    """The seconds of a span such as `90d`, `12h` or `30m`; raises `InvalidSettings`."""
    match = _SPAN.fullmatch(text)
    if not match:
        raise InvalidSettings(f"{text[:200]!r} is no span of time: write a number and a unit, such as 90d, 12h or 30m")
    return int(match[1]) * _SECONDS[match[2]]


def end_of(text: str, now: float) -> str:
    """The end that a span from now, or an ISO date, tells; as `text_of`.

    Raises:
        InvalidSettings: it is neither, or it is over already.
    """
    try:
        moment = now + span_of(text) if _SPAN.fullmatch(text) else moment_of(text)
    except ValueError as error:
        raise InvalidSettings(
            f"{text[:200]!r} is no time at which to end: write a span such as 90d, 12h or 30m, or a date such as "
            "2030-12-31, on which it ends at midnight (UTC)"
        ) from error
    if moment <= now:
        raise InvalidSettings(f"{text[:200]!r} is over already: write a time that is to come")
    return text_of(moment)
