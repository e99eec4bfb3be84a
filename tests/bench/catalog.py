"""Every benchmark."""

from tests.bench import (
    adapters_scaling,
    compose_grid,
    compose_optimizers,
    compose_speed,
    edge_cost,
    edge_cpu,
    edge_serving,
    fairness,
    lora_overhead,
    lora_rank,
    mixing,
    mixtures,
    proxy_speed,
    soak,
    swap,
)
from tests.bench.registry import Registry

BENCHMARKS = Registry()
BENCHMARKS.add(edge_cpu.BENCHMARK)
BENCHMARKS.add(edge_cost.BENCHMARK)
BENCHMARKS.add(edge_serving.BENCHMARK)
BENCHMARKS.add(fairness.BENCHMARK)
BENCHMARKS.add(lora_overhead.BENCHMARK)
BENCHMARKS.add(lora_rank.BENCHMARK)
BENCHMARKS.add(adapters_scaling.BENCHMARK)
BENCHMARKS.add(mixing.BENCHMARK)
BENCHMARKS.add(mixtures.BENCHMARK)
BENCHMARKS.add(proxy_speed.BENCHMARK)
BENCHMARKS.add(compose_speed.BENCHMARK)
BENCHMARKS.add(compose_grid.BENCHMARK)
BENCHMARKS.add(compose_optimizers.BENCHMARK)
BENCHMARKS.add(swap.BENCHMARK)
BENCHMARKS.add(soak.BENCHMARK)
