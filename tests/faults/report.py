"""The table of faults, for people and for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.faults.recorder import GOOD, WRONG
from tests.faults.round import Result, Round

HEAD = (
    "fault",
    "made by",
    "times",
    "requests during it",
    "publishing",
    "`/ready`",
    "good again, s",
    "all again, s",
    "wrong",
    "lost",
    "helped",
)
_NAMES = {GOOD: "good", WRONG: "WRONG"}


def document(results: Sequence[Result], record: Mapping[str, Any]) -> str:
    """`docs/reliability.md`.

    Args:
        results: of the campaign.
        record: where and when it was run; see `about`.
    """
    rows = [
        " | ".join(HEAD),
        " | ".join("---" for _ in HEAD),
        *(" | ".join(row(each)) for each in results if each.rounds),
    ]
    table = "\n".join(f"| {line} |" for line in rows)
    unlike = [f"- {each.what}: {why}" for each in results for why in dict.fromkeys(each.unlike)]
    skipped = [f"- {each.what}: {each.skipped}" for each in results if each.skipped]
    parts = [introduction(results, record), table, COLUMNS]
    if unlike:
        parts.append("What went otherwise than promised:\n\n" + "\n".join(unlike))
    if skipped:
        parts.append("Not tried, as this machine does not permit it:\n\n" + "\n".join(skipped))
    return "\n\n".join([*parts, CLOSING]) + "\n"


def introduction(results: Sequence[Result], record: Mapping[str, Any]) -> str:
    """What a user needs to know before the table."""
    rounds = sum(len(each.rounds) for each in results)
    asked = sum(sum(each.asked.values()) for each in results)
    wrong, lost = sum(each.wrong for each in results), max((each.lost for each in results), default=0)
    helped = sum(each.helped for each in results)
    text = INTRODUCTION.format(
        rounds=rounds,
        asked=asked,
        wrong=wrong or "none",
        lost=lost or "none",
        helped=helped or "none",
        acknowledged=record["acknowledged"],
        date=record["date"],
        cores=record["machine"]["cores"],
    )
    return f"{text}\n{record['note']}" if record.get("note") else text


def row(result: Result) -> tuple[str, ...]:
    """A fault's line of the table."""
    return (
        result.what,
        result.how,
        str(len(result.rounds)),
        told(result.asked),
        told(result.published),
        told(result.ready),
        _two(result.median, result.worst),
        _one(result.worst_whole),
        str(result.wrong),
        str(result.lost),
        str(result.helped),
    )


def told(ends: Mapping[str, int]) -> str:
    """How requests ended, the good first."""
    ordered = sorted(ends.items(), key=lambda each: (each[0] != GOOD, -each[1]))
    return ", ".join(f"{count:,} {_NAMES.get(how) or _coded(how)}" for how, count in ordered) or "none"


def record_of(results: Sequence[Result], about: Mapping[str, Any]) -> str:
    """`docs/reliability.json`: the same, each round by itself."""
    return json.dumps({**about, "faults": [asdict(each) for each in results]}, indent=1) + "\n"


def results_of(record: Mapping[str, Any]) -> list[Result]:
    """The results in a record, as `record_of` wrote it."""
    return [Result(**{**each, "rounds": [Round(**one) for one in each["rounds"]]}) for each in record["faults"]]


def _coded(how: str) -> str:
    status, _, code = how.partition(" ")
    return f"{status} `{code}`" if status.isdigit() and code.replace("_", "").isalpha() else how


def _two(median: float | None, worst: float | None) -> str:
    return "never" if median is None or worst is None else f"{median:.1f}, {worst:.1f}"


def _one(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f}"


INTRODUCTION = """# When things fail

Made by `python -m tests.faults`; do not edit. What a server does about each fault is in
[serving](serving.md#when-things-fail); here is what came of {rounds} faults that were made on purpose.

A server with the demo's model and adapters was under load all the time: five clients asked for names, versions, a
tag and mixtures, and each answer was compared with what exactly that version answers; one client published versions,
and one asked `/ready`. Of {asked:,} requests during the faults, {wrong} had a wrong answer. Of {acknowledged:,}
versions whose publication was acknowledged, {lost} were lost. After {helped} of the faults a person had to help.

What to do as a client: send a request again that was answered with 503, after `Retry-After` seconds, or whose
connection broke off. OpenAI's clients do that by themselves, except in the middle of a stream. A stream that broke off
has an event with an `error`, or does not end with `[DONE]`. Publishing can be repeated, too: the same adapter again is
the version that there is.

Run on {date}, on {cores} cores without a GPU. Most of the time after a kill is what vLLM takes to start."""

COLUMNS = """\
- *requests during it*: how requests for adapters ended, from the beginning of the fault until all was well, all times
  together. *Broken off* is a connection that ended before its answer did; *ended by an error event* is a stream of
  which the server could still say that it fails.
- *good again*: seconds until the first good answer (where the store could not be written: until the first version that
  was published), median and worst. They count from when a process died, or from when the disk, the clock or the engine
  was as before. For clients that leave, do not read or do not finish, it is until the server had rid itself of them.
- *all again*: the worst time until every adapter had answered right, a version was published, and `/ready` said 200.
  Without any fault one round of all that takes some seconds, too.
- *wrong*: answers with 200 that were not what that version answers. *lost*: acknowledged versions that were missing or
  changed. *helped*: times that a person would have been needed."""

CLOSING = """\
`docs/reliability.json` has every single time. `make faults` runs it all again; it takes an hour and a half on two
cores, and root on Linux for its disk. It has a mount namespace of its own, and leaves the machine's clock and
filesystems alone. With `--add`, what was broken off goes on."""
