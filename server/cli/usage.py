"""`loraloom usage`: sums of the usage ledger."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from loraloom.server.cli.options import configured
from loraloom.server.cli.tables import table
from loraloom.server.errors import InvalidSettings
from loraloom.server.observe.usage import Span, Sum, Usage, moment, summed

Options = argparse.Namespace
Extra = Sequence[str]

FIELDS = ("requests", "prompt", "cached", "output", "estimated", "seconds", "edge", "engine")


def usage(options: Options, _: Extra) -> int:
    """One line a group, and what they add up to."""
    by = [name.strip() for name in options.by.split(",") if name.strip()]
    span = Span(
        since=moment(options.since) if options.since else None,
        until=moment(options.until) if options.until else None,
        key=options.key,
    )
    found = summed(_folder(options), by, span)
    if options.json:
        _print_json(by, found)
    elif options.csv:
        _print_csv(by, found)
    else:
        _print_table(by, found)
    if found.torn:
        print(
            f"loraloom: {found.torn} lines are not whole and were left out, as killed servers leave them",
            file=sys.stderr,
        )
    return 0


def _folder(options: Options) -> Path:
    folder = options.folder or configured(options).settings.usage
    if folder is None:
        raise InvalidSettings("the setting `usage` is empty, so no ledger is kept; name a folder with --folder")
    if not Path(folder).is_dir():
        raise InvalidSettings(f"there is no usage ledger in {folder}: has a server run with this setting? See --folder")
    return Path(folder)


def _print_json(by: Sequence[str], found: Usage) -> None:
    groups = [dict(zip(by, group, strict=True)) | _numbers(sums) for group, sums in sorted(found.sums.items())]
    print(json.dumps({"groups": groups, "torn": found.torn}, indent=2, ensure_ascii=False))


def _print_csv(by: Sequence[str], found: Usage) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((*by, *FIELDS))
    for group, sums in sorted(found.sums.items()):
        writer.writerow((*group, *_numbers(sums).values()))


def _print_table(by: Sequence[str], found: Usage) -> None:
    lines = [_row(group, sums) for group, sums in sorted(found.sums.items())]
    if by and len(lines) > 1:
        lines.append(_row(("total", *[""] * (len(by) - 1)), _total(found)))
    table((*(name.upper() for name in by), *(name.upper() for name in FIELDS)), lines)


def _row(group: Sequence[str], sums: Sum) -> tuple[str, ...]:
    return (*group, *(f"{value:.1f}" if isinstance(value, float) else str(value) for value in _numbers(sums).values()))


def _numbers(sums: Sum) -> dict[str, int | float]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(sums).items()}


def _total(found: Usage) -> Sum:
    total = Sum()
    for sums in found.sums.values():
        total.merge(sums)
    return total
