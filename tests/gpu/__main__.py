"""`python -m tests.gpu [--out FOLDER] [NAME…]`: the mixed batches and the benchmarks on this machine's GPU, as JSON.

Takes up to sixteen minutes. Exits with 1 when a goal is missed or something failed, with 2 where there is no GPU.
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
from tests.gpu import mixed_batch, proxy_mixed, proxy_setups, setups
from tests.gpu.device import missing
from tests.gpu.proxy_setups import ProxyScale
from tests.gpu.setups import Place

SECONDS = 900.0
"""When the last round has to begin; ending the servers takes some more."""
NAMES = {
    "mixed_batch": "one batch of adapters and the base, beside the same alone and transformers with peft",
    "lora_overhead": "what adapters cost beside none, against vLLM's own server and peft",
    "adapters_scaling": "throughput, first token and memory, by adapters registered",
    "proxy_mixed": "proxy-tuning in one batch with everything else, beside three models of transformers with peft",
    "proxy_speed": "proxy-tuning beside the large model alone, and beside the published way",
}
DUE = {"mixed_batch": 0.125, "lora_overhead": 0.325, "adapters_scaling": 0.5, "proxy_mixed": 0.7, "proxy_speed": 1.0}
"""When each should be done, as a part of all seconds."""


@dataclass(frozen=True)
class Measurement:
    """One run of the command.

    Attributes:
        place: what the benchmarks of adapters run on.
        proxy: how large those of proxy-tuning are.
        out: the folder of the JSON files.
        began: in seconds of `time.monotonic`.
        seconds: what all may take together.
    """

    place: Place
    proxy: ProxyScale
    out: Path
    began: float
    seconds: float

    def run(self, names: Sequence[str]) -> Iterator[Outcome | None]:
        """Each in turn, None where one failed.

        The stores are filled behind the mixed batches, which are not timed, and before anything that is.
        """
        with ThreadPoolExecutor(1) as beside:
            filling = beside.submit(self.place.fill) if "adapters_scaling" in names else None
            for name in names:
                if filling and name not in self._batches:
                    wait([filling])  # what went wrong there comes up again where the stores are used
                try:
                    yield measured(Benchmark(name, NAMES[name], self._run_of(name)), False, self.out)
                except Exception:  # time on such a machine is dear: what else can be measured, is
                    traceback.print_exc()
                    yield None

    def _run_of(self, name: str) -> Callable[[Path, bool], Outcome]:
        deadline = self.began + DUE[name] * self.seconds
        return lambda folder, full: self._batch(name) if name in self._batches else self._timed(name, deadline)

    def _timed(self, name: str, deadline: float) -> Outcome:
        if name == "proxy_speed":
            return self.proxy.speed(self.place.folder, deadline)
        return self.place.benchmarks[name](deadline)

    def _batch(self, name: str) -> Outcome:
        with tempfile.TemporaryDirectory() as scratch:
            return self._batches[name](Path(scratch))

    @property
    def _batches(self) -> dict[str, Callable[[Path], Outcome]]:
        """What is not timed, by its name."""
        single, several = self.place.scale.precision, self.proxy.precisions
        return {
            "mixed_batch": lambda folder: mixed_batch.outcome(mixed_batch.compared(single, folder)),
            "proxy_mixed": lambda folder: proxy_mixed.outcome(proxy_mixed.compared(several, folder)),
        }


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
    form = "dry" if options.dry else "gpu"
    scale, proxy = (setups.DRY, proxy_setups.DRY) if options.dry else (setups.GPU, proxy_setups.GPU)
    place = Place(scale, FOLDER.parent.resolve() / form)
    session = Measurement(place, proxy, options.out, time.monotonic(), options.seconds)
    outcomes = list(session.run([name for name in NAMES if name in (options.names or NAMES)]))
    return 0 if all(each and all(goal.met for goal in each.goals) for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
