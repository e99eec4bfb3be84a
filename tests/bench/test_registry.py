from pathlib import Path

import pytest

from tests.bench.__main__ import main
from tests.bench.catalog import BENCHMARKS
from tests.bench.errors import DuplicateBenchmark, UnknownBenchmark
from tests.bench.outcome import Outcome, Table
from tests.bench.registry import Benchmark, Registry


def nothing(folder: Path, full: bool) -> Outcome:
    return Outcome(runs=1, parameters={}, results={}, samples={}, table=Table(("figure",), ()))


def test_benchmarks_come_in_the_order_in_which_they_were_added() -> None:
    registry = Registry()
    added = [Benchmark(name, "", nothing) for name in ("swap", "soak")]
    for benchmark in added:
        registry.add(benchmark)
    assert list(registry) == added
    assert registry.get("soak") is added[1]


def test_a_name_is_given_once() -> None:
    registry = Registry()
    registry.add(Benchmark("swap", "one", nothing))
    with pytest.raises(DuplicateBenchmark, match="'swap'"):
        registry.add(Benchmark("swap", "another", nothing))
    assert registry.get("swap").about == "one"


def test_a_miss_lists_what_there_is() -> None:
    registry = Registry()
    for name in ("swap", "soak"):
        registry.add(Benchmark(name, "", nothing))
    with pytest.raises(UnknownBenchmark, match="'swop'; there are swap, soak"):
        registry.get("swop")


def test_every_benchmark_module_is_in_the_catalog() -> None:
    declaring = {path.stem for path in Path(__file__).parent.glob("*.py") if "\nBENCHMARK = " in path.read_text()}
    assert declaring
    assert {benchmark.name for benchmark in BENCHMARKS} == declaring


def test_one_that_is_not_run_by_default_is_run_by_its_name_and_in_the_full_form(tmp_path: Path) -> None:
    ran: list[tuple[str, bool]] = []
    registry = Registry()
    for name, by_default in (("swap", True), ("soak", False)):

        def run(folder: Path, full: bool, name: str = name) -> Outcome:
            ran.append((name, full))
            return nothing(folder, full)

        registry.add(Benchmark(name, "", run, by_default))
    for arguments in ([], ["soak"], ["--full"]):
        assert main([*arguments, "--out", str(tmp_path)], registry) == 0
    assert ran == [("swap", False), ("soak", False), ("swap", True), ("soak", True)]
