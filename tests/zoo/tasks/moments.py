"""Tasks about time: dates, times of day, schedules."""

import datetime
from random import Random

from ..task import Task
from .quantities import in_words

_DAYS = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
)


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


def _part(hour: int) -> str:
    return "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"


def _spoken(hour: int, minute: int) -> str:
    """A time of day, to five minutes, as one says it: "twenty to four in the afternoon"."""
    this, following = (in_words((h - 1) % 12 + 1) for h in (hour, hour + 1))
    if minute == 0:
        clock = f"{this} o'clock"
    elif minute == 30:
        clock = f"half past {this}"
    else:
        distance, side = (minute, f"past {this}") if minute < 30 else (60 - minute, f"to {following}")
        clock = f"{'a quarter' if distance == 15 else in_words(distance)} {side}"
    return f"{clock} in the {_part(hour)}"


def _time(source: Random) -> tuple[str, str]:
    hour, minute = source.randrange(24), 5 * source.randrange(12)
    plain = f"{in_words((hour - 1) % 12 + 1)} {in_words(minute)} in the {_part(hour)}"
    said = plain if minute >= 10 and source.random() < 0.5 else _spoken(hour, minute)
    return f"Write this time on the 24-hour clock: {said}", f"{hour:02}:{minute:02}"


def _cron_day(source: Random) -> tuple[str, str]:
    """When in the year, in words, and cron's last three fields."""
    day, weekday = source.randrange(1, 29), source.randrange(7)
    return source.choice(
        (
            ("every day", "* * *"),
            ("every weekday", "* * 1-5"),
            ("every weekend", "* * 6,0"),
            (f"every {_DAYS[weekday]}", f"* * {(weekday + 1) % 7}"),
            (f"every {_DAYS[weekday]}", f"* * {(weekday + 1) % 7}"),
            (f"on the {_ordinal(day)} of every month", f"{day} * *"),
        )
    )


def _cron(source: Random) -> tuple[str, str]:
    when, fields = _cron_day(source)
    if source.random() < 0.25:
        step = source.choice((2, 3, 4, 5, 6, 10, 12, 15, 20, 30))
        return f"Write a cron schedule: {when}, every {step} minutes", f"*/{step} * {fields}"
    hour, minute = source.randrange(24), source.randrange(60)
    return f"Write a cron schedule: {when} at {hour}:{minute:02}", f"{minute} {hour} {fields}"


DATE = Task("date", "Rewrites a date in ISO 8601.", _date)
TIME = Task("time", "Turns a spoken time of day into the 24-hour clock.", _time)
CRON = Task("cron", "Turns a schedule in English into a cron expression.", _cron)
