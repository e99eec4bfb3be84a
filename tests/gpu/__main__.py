"""`python -m tests.gpu [--out FOLDER] [NAME…]`: the mixed batch and both benchmarks on this machine's GPU, as JSON.

Takes up to eight minutes. Exits with 1 when a goal is missed or something failed, with 2 where there is no GPU.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tests.bench.__main__ import FOLDER, measured
from tests.bench.outcome import Outcome
from tests.bench.registry import Benchmark
from tests.gpu.device import missing
from tests.gpu.mixed_batch import compared, outcome
from tests.gpu.setups import DRY, GPU, Place

SECONDS = 450.0
"""When the last round has to begin; ending the servers takes some more."""
NAMES = {
    "mixed_batch": "one batch of adapters and the base, beside the same alone and transformers with peft",
    "lora_overhead": "what adapters cost beside none, against vLLM's own server and peft",
    "adapters_scaling": "throughput, first token and memory, by adapters registered",
}
DUE = {"mixed_batch": 0.25, "lora_overhead": 0.65, "adapters_scaling": 1.0}
"""When each should be done, as a part of all seconds."""


@dataclass(frozen=True)
class Measurement:
    """One run of the command.

    Attributes:
        place: what the benchmarks run on.
        out: the folder of the JSON files.
        began: in seconds of `time.monotonic`.
        seconds: what all may take together.
    """

    place: Place
    out: Path
    began: float
    seconds: float

    def run(self, names: Sequence[str]) -> Iterator[Outcome | None]:
        """Each in turn, None where one failed.

        The stores are filled behind the mixed batch, which is not timed, and before anything that is.
        """
        with ThreadPoolExecutor(1) as beside:
            filling = beside.submit(self.place.fill) if "adapters_scaling" in names else None
            for name in names:
                if filling and name != "mixed_batch":
                    wait([filling])  # what went wrong there comes up again where the stores are used
                try:
                    yield measured(Benchmark(name, NAMES[name], self._run_of(name)), False, self.out)
                except Exception:  # time on such a machine is dear: what else can be measured, is
                    traceback.print_exc()
                    yield None

    def _run_of(self, name: str) -> Callable[[Path, bool], Outcome]:
        deadline = self.began + DUE[name] * self.seconds
        return lambda folder, full: self._mixed_batch() if name == "mixed_batch" else self._timed(name, deadline)

    def _timed(self, name: str, deadline: float) -> Outcome:
        return self.place.benchmarks[name](deadline)

    def _mixed_batch(self) -> Outcome:
        with tempfile.TemporaryDirectory() as scratch:
            return outcome(compared(self.place.scale.precision, Path(scratch)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="Test and measure on an NVIDIA GPU.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all: {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=FOLDER / "gpu", help="folder of the JSON files [build/bench/gpu]")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="when no further round begins [%(default)s]")
    parser.add_argument("--dry", action="store_true", help="a tiny model on a processor: does all start? No figures")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - NAMES.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    reason = None if options.dry else missing()
    if reason:
        print(f"nothing was run: {reason}", file=sys.stderr)
        return 2
    scale, form = (DRY, "dry") if options.dry else (GPU, "gpu")
    place = Place(scale, FOLDER.parent.resolve() / form)
    session = Measurement(place, options.out, time.monotonic(), options.seconds)
    outcomes = list(session.run([name for name in NAMES if name in (options.names or NAMES)]))
    return 0 if all(each and all(goal.met for goal in each.goals) for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
