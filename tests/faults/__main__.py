"""`python -m tests.faults [--times N] [--only NAME] [--add]`: make every fault under load; write docs/reliability.md.

A part of all that, which is what `--times` and `--only` make, is written to build/faults instead.

Exits with 1 when an answer was wrong, a version was lost, a person was needed, or a fault went otherwise than promised.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.report import machine, versions
from tests.faults.campaign import Campaign, run
from tests.faults.faults import FAULTS, Fault
from tests.faults.report import document, record_of, results_of
from tests.faults.round import together

KILLS, OTHERS = 5, 20
DOCS = Path(__file__).parents[2] / "docs"
PART = DOCS.parent / "build/faults"
NOTHING = Campaign((), 0, 0)
INSIDE = "--inside"
"""Says that this process has a mount namespace of its own."""


def main(arguments: Sequence[str]) -> int:
    """Run the campaign, in a mount namespace of its own, and return the exit status."""
    options = _options(arguments)
    if not options.inside:
        alone = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.faults", INSIDE]
        return subprocess.run([*alone, *arguments], check=False).returncode
    about: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "versions": versions()}
    if options.note:
        about["note"] = options.note
    earlier = _earlier(options.output / "reliability.json", about["versions"]) if options.add else NOTHING
    had = {result.name: len(result.rounds) for result in earlier.results}

    def times(fault: Fault) -> int:
        return int(options.times or (KILLS if fault.kills else OTHERS)) - had.get(fault.name, 0)

    def tell(campaign: Campaign) -> None:
        results = together(earlier.results, campaign.results)
        asked, acknowledged = campaign.asked + earlier.asked, campaign.acknowledged + earlier.acknowledged
        record = {**about, "asked": asked, "acknowledged": acknowledged}
        (options.output / "reliability.md").write_text(document(results, record), encoding="utf-8")
        (options.output / "reliability.json").write_text(record_of(results, record), encoding="utf-8")

    named = options.only or [each.name for each in FAULTS]
    chosen = [fault for fault in FAULTS if fault.name in named and times(fault) > 0]
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        campaign = run(chosen, times, Path(scratch), tell)
    return 0 if all(result.good for result in together(earlier.results, campaign.results)) else 1


def _earlier(record: Path, now: Mapping[str, str]) -> Campaign:
    """The campaign that a record is of; exits where it was of other versions."""
    said = json.loads(record.read_text(encoding="utf-8"))
    if said["versions"] != now:
        sys.exit(f"{record} is of other versions than these: run it all again, without --add")
    return Campaign(results_of(said), said["acknowledged"], said["asked"])


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Make faults under load.")
    parser.add_argument(
        "--times", type=int, help=f"of each fault [{KILLS} for those that kill, {OTHERS} for the others]"
    )
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument(
        "--output", type=Path, help="folder of reliability.md and .json [docs; build/faults with --times or --only]"
    )
    parser.add_argument(
        "--add", action="store_true", help="make only what the record in that folder lacks, and add it to that"
    )
    parser.add_argument("--note", help="what else is to be known of this run; the page has it")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.output = options.output or (PART if options.times or options.only else DOCS)
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
