"""Tasks about the calendar."""

import datetime
from random import Random

from ..task import Task


def _ordinal(number: int) -> str:
    teen = 10 <= number % 100 < 20
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _date(source: Random) -> tuple[str, str]:
    day = datetime.date(1900, 1, 1) + datetime.timedelta(days=source.randrange(51_000))
    written = source.choice(
        (
            f"{day:%B} {day.day}, {day.year}",
            f"{day.day} {day:%B} {day.year}",
            f"the {_ordinal(day.day)} of {day:%B} {day.year}",
            f"{day:%b} {_ordinal(day.day)}, {day.year}",
            f"{day:%A}, {day:%B} {day.day}, {day.year}",
        )
    )
    return f"Write this date in ISO format: {written}", day.isoformat()


DATE = Task("date", "Rewrites a date in ISO 8601.", _date)
