"""Every benchmark."""

from tests.bench import edge_cpu, edge_serving
from tests.bench.registry import Registry

BENCHMARKS = Registry()
BENCHMARKS.add(edge_cpu.BENCHMARK)
BENCHMARKS.add(edge_serving.BENCHMARK)
