"""`python -m tests.bench [--full] [NAME…]`: run benchmarks, by default most, in their short forms.

Exits with 1 when a goal is missed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.catalog import BENCHMARKS
from tests.bench.errors import UnknownBenchmark
from tests.bench.outcome import Outcome
from tests.bench.registry import Benchmark, Registry
from tests.bench.report import Circumstances, machine, shown, written

FOLDER = Path(__file__).parents[2] / "build" / "bench"


def main(arguments: Sequence[str] | None = None, benchmarks: Registry = BENCHMARKS) -> int:
    """Measure, show and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what the server costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(f"{b.name}: {b.about}" for b in benchmarks))
    parser.add_argument("--full", action="store_true", help="at full length: hours for all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON files and pictures [build/bench]")
    options = parser.parse_args(arguments)
    try:
        named = [benchmarks.get(name) for name in options.names]
    except UnknownBenchmark as error:
        parser.error(str(error))
    chosen = named or [benchmark for benchmark in benchmarks if benchmark.by_default or options.full]
    outcomes = [measured(benchmark, options.full, options.out) for benchmark in chosen]
    return 0 if all(goal.met for outcome in outcomes for goal in outcome.goals) else 1


def measured(benchmark: Benchmark, full: bool, folder: Path) -> Outcome:
    """Run one benchmark, show what came out, and write it down."""
    print(f"\n{benchmark.name}: {benchmark.about}", flush=True)
    where, began = machine(), time.monotonic()
    outcome = benchmark.run(folder, full)
    paths = written(benchmark, outcome, Circumstances(full, where, time.monotonic() - began), folder)
    print("", shown(outcome), *paths, sep="\n", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
