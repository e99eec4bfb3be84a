"""Benchmarks by their names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.bench.errors import DuplicateBenchmark, UnknownBenchmark
from tests.bench.outcome import Outcome

Run: TypeAlias = Callable[[Path, bool], Outcome]
"""Measures. The path is a folder for what it wants to keep for the next time, such as a filled store; the flag says
whether the full form is wanted, at full length. The short forms of all together take three quarters of an hour."""


@dataclass(frozen=True)
class Benchmark:
    """Something that can be measured.

    Attributes:
        name: how it is called, and its JSON file.
        about: what it measures, in one line.
        run: measures it.
        by_default: whether it runs when none is named; all do in the full form.
    """

    name: str
    about: str
    run: Run
    by_default: bool = True


class Registry:
    """Benchmarks in the order in which they were added."""

    def __init__(self) -> None:
        self._benchmarks: dict[str, Benchmark] = {}

    def add(self, benchmark: Benchmark) -> None:
        """Make a benchmark known; raises `DuplicateBenchmark` if its name is taken."""
        if benchmark.name in self._benchmarks:
            raise DuplicateBenchmark(benchmark.name)
        self._benchmarks[benchmark.name] = benchmark

    def get(self, name: str) -> Benchmark:
        """The benchmark of that name; raises `UnknownBenchmark`, which lists those that there are."""
        try:
            return self._benchmarks[name]
        except KeyError:
            raise UnknownBenchmark(name, self._benchmarks) from None

    def __iter__(self) -> Iterator[Benchmark]:
        return iter(self._benchmarks.values())
