"""Why a benchmark could not be run.

BenchError
├── UnknownBenchmark    (LookupError)   no benchmark of this name
├── DuplicateBenchmark  (ValueError)    the name is taken
└── InvalidRun          (RuntimeError)  what was measured is not what should have been: no figure is better
"""

from collections.abc import Iterable


class BenchError(Exception):
    """Base of every error of the benchmarks."""


class UnknownBenchmark(BenchError, LookupError):
    """No benchmark of this name.

    Attributes:
        name: what was asked for.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        super().__init__(f"there is no benchmark {name!r}; there are {', '.join(known)}")


class DuplicateBenchmark(BenchError, ValueError):
    """Two benchmarks of one name.

    Attributes:
        name: the name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there are two benchmarks named {name!r}: rename one")


class InvalidRun(BenchError, RuntimeError):
    """A request was not answered as it should have been, or a server did not start."""
