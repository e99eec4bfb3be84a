"""Reads usage ledgers and sums them up: any number of lines, in the memory of the groups alone."""

import gzip
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from loraloom.server.errors import InvalidSettings

log = logging.getLogger("vllm.loraloom.usage")

Line = Mapping[str, Any]

_FILE = re.compile(r"usage-.+-\d+-(\d{8})-\d+\.jsonl(\.gz)?")
_VERSION = re.compile(r"([^@*+~:]+)@\d+(~.*)?")

GROUPS: Mapping[str, Callable[[Line], str]] = {
    "key": lambda line: str(line["key"]),
    "adapter": lambda line: adapter_of(str(line["model"])),
    "model": lambda line: str(line["model"]),
    "path": lambda line: str(line["path"]),
    "month": lambda line: str(line["began"])[:7],
    "day": lambda line: str(line["began"])[:10],
    "hour": lambda line: str(line["began"])[:13],
    "status": lambda line: str(line["status"]),
    "ending": lambda line: str(line["ending"]),
}
"""What lines can be summed by. `model` is the canonical name that ran, `adapter` the same without its version."""


def adapter_of(model: str) -> str:
    """An adapter's name without its version and strength; mixtures and base models are what they are."""
    match = _VERSION.fullmatch(model)
    return match[1] if match else model


@dataclass
class Sum:
    """What the lines of one group add up to.

    Attributes:
        requests: how many.
        prompt, cached, output: tokens; those in the prefix cache are among those of the prompt.
        estimated: requests whose tokens are in part an estimate, since they were aborted before the engine told.
        seconds: from the first byte of each request to the end of its answer.
        edge, engine: those of them in the queue at the edge, and in the engine's.
    """

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0
    estimated: int = 0
    seconds: float = 0.0
    edge: float = 0.0
    engine: float = 0.0

    def add(self, line: Line) -> None:
        """Add one line."""
        self.requests += 1
        self.prompt += line["prompt"]
        self.cached += line["cached"]
        self.output += line["output"]
        self.estimated += bool(line["estimated"])
        self.seconds += line["seconds"]
        self.edge += line["edge"] or 0.0
        self.engine += line["engine"] or 0.0

    def merge(self, other: "Sum") -> None:
        """Add what another one adds up to."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Usage:
    """Sums by group, and what was found on the way.

    Attributes:
        sums: by the group's values, in the order that was asked for.
        torn: lines that are not whole, as a killed process leaves its last.
    """

    sums: dict[tuple[str, ...], Sum] = field(default_factory=dict)
    torn: int = 0


@dataclass(frozen=True)
class Span:
    """Which lines count, by when their requests began.

    Attributes:
        since: the first moment, None is the beginning of time.
        until: the first moment after.
        key: of this key only.
    """

    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None

    def has(self, line: Line) -> bool:
        """Whether a line counts."""
        if self.key is not None and line["key"] != self.key:
            return False
        began = datetime.fromisoformat(line["began"])
        return (self.since is None or began >= self.since) and (self.until is None or began < self.until)

    def may_have(self, day: str) -> bool:
        """Whether a file of a UTC day, as 20260131, can have such lines: it has what ended then, and began before."""
        return self.since is None or day >= f"{self.since.astimezone(UTC):%Y%m%d}"


def summed(folder: Path, by: Sequence[str], span: Span = Span()) -> Usage:
    """Sum the ledgers of a folder; those that are written meanwhile are read as far as they are.

    Args:
        folder: with the ledgers of any number of processes; `.jsonl`, or compressed as `.jsonl.gz`.
        by: names of `GROUPS`; without any there is one sum.
        span: which lines count.

    Raises:
        InvalidSettings: there is no such group.
        OSError: the folder or a file cannot be read.
    """
    values = [_group(name) for name in by]
    usage = Usage()
    for path in _files(folder, span):
        for line in _lines(path, usage):
            if span.has(line):
                usage.sums.setdefault(tuple(value(line) for value in values), Sum()).add(line)
    return usage


def moment(text: str, now: datetime | None = None) -> datetime:
    """A date, a time by ISO 8601 (UTC where it says no zone), or how long ago as `12h` or `30d`."""
    ago = re.fullmatch(r"(\d{1,6})([hd])", text)
    if ago:
        length = timedelta(hours=int(ago[1])) if ago[2] == "h" else timedelta(days=int(ago[1]))
        return (now or datetime.now(UTC)) - length
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidSettings(
            f"{text!r} is no time: write a date such as 2026-01-31, a time such as 2026-01-31T12:00, or how long ago, "
            "such as 12h or 30d"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _group(name: str) -> Callable[[Line], str]:
    if name not in GROUPS:
        raise InvalidSettings(f"usage cannot be summed by {name!r}, but by {', '.join(GROUPS)}")
    return GROUPS[name]


def _files(folder: Path, span: Span) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and span.may_have(match[1]):
            yield path


def _lines(path: Path, usage: Usage) -> Iterator[Line]:
    with _opened(path) as file:
        for raw in _to_its_end(file, path):
            line = _parsed(raw)
            if line is None:
                usage.torn += 1
            else:
                yield line


def _to_its_end(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file, as far as they can be read where it is compressed and damaged."""
    try:
        yield from file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        log.warning("%s is damaged, and what comes after that is in no sum: %s", path, error)


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


_NEEDED = ("key", "model", "prompt", "cached", "output", "estimated", "began", "seconds", "edge", "engine")


def _parsed(raw: bytes) -> Line | None:
    """A whole line; None for a part of one."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and all(name in line for name in _NEEDED) else None
