"""Moments and spans as people write them."""

import pytest

from loraloom.server.access.moments import end_of, moment_of, span_of, text_of
from loraloom.server.errors import InvalidSettings

NOW = moment_of("2026-01-01T00:00:00Z")


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("12h", 43_200), ("90d", 7_776_000), ("0m", 0)])
def test_a_span_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert span_of(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "1.5h", "-1h", "1 h", "9999999d", "1h\n", "١h"])
def test_what_is_no_span_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidSettings, match="90d, 12h or 30m"):
        span_of(text)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("90d", "2026-04-01T00:00:00Z"),
        ("30m", "2026-01-01T00:30:00Z"),
        ("2026-12-31", "2026-12-31T00:00:00Z"),
        ("2026-12-31T12:00:00", "2026-12-31T12:00:00Z"),
        ("2026-12-31T12:00:00+02:00", "2026-12-31T10:00:00Z"),
    ],
)
def test_an_end_is_a_span_from_now_or_a_date_in_utc(text: str, end: str) -> None:
    assert end_of(text, NOW) == end
    assert text_of(moment_of(end)) == end


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tomorrow", "write a span such as 90d"),
        ("", "write a span such as 90d"),
        ("2025-12-31", "over already"),
        ("0d", "over already"),
        ("0001-01-01T00:00:00+23:59", "over already|write a span"),
        ("9999-12-31T23:59:59-10:00", "too far away"),
    ],
)
def test_an_end_that_is_none_or_over_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        end_of(text, NOW)
