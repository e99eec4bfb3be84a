"""What is chosen for an engine on a CPU: the table of machines, arguments and environments, and what comes of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from loraloom.server.footprint import Footprint
from loraloom.server.machine import Machine
from loraloom.server.machine.preload import Libraries
from loraloom.server.machine.topology import Topology
from loraloom.server.settings import Settings
from loraloom.server.tuning import GIB, Tuning, given, tune
from tests.server.machine.test_machine import CPU
from tests.server.test_footprint import SMALL

AVX512 = dataclasses.replace(CPU, flags=frozenset({"avx2", "avx512f"}))
LARGE = Footprint(weights=16 * GIB, sixteen_bits=True, token=2 * 32 * 8 * 128, rank=2_621_440, context=131_072)
"""As Llama 3.1 8B."""
FEW = Settings(max_loras=1, max_cpu_loras=1)


def tuned(
    *extra: str,
    machine: Machine = AVX512,
    footprint: Footprint | None = SMALL,
    environment: Mapping[str, str] | None = None,
    settings: Settings = FEW,
    rank: int = 16,
    **changes: Any,
) -> Tuning:
    """The choice on a machine that differs from AVX512 in some values."""
    machine = dataclasses.replace(machine, **changes)
    return tune(settings, rank, extra, machine, footprint, environment or {})


def space(*extra: str, available: float, **others: Any) -> int:
    """The space for the KV cache, in GiB, where so many GiB are available."""
    return int(tuned(*extra, memory_available=int(available * GIB), **others).environment["VLLM_CPU_KVCACHE_SPACE"])


def notes(tuning: Tuning, part: str) -> list[str]:
    return [note for note in tuning.notes if part in note]


def test_nothing_on_a_gpu() -> None:
    assert tuned(gpu="NVIDIA L4", distribution="vllm", flags=frozenset({"avx2"})) == Tuning()


@pytest.mark.parametrize(
    ("extra", "value"),
    [
        ((), None),
        (("--dtype",), ""),
        (("--dtype", "half"), "half"),
        (("--dtype=half", "--seed", "1"), "half"),
        (("--dtyp", "half"), "half"),
        (("--dtype", "half", "--dtype", "auto"), "auto"),
        (("--seed", "1", "--", "x", "--dtype-of-other", "half"), None),
    ],
)
def test_values_of_the_users_arguments(extra: tuple[str, ...], value: str | None) -> None:
    assert given(extra, "--dtype") == value


def test_underscores_are_dashes() -> None:
    assert given(("--max_model_len", "8"), "--max-model-len") == "8"


def test_float32_on_a_processor_without_avx512() -> None:
    tuning = tuned(machine=CPU)
    assert tuning.arguments == ("--dtype", "float32")
    assert notes(tuning, "--dtype float32: without AVX512")
    assert tuned(machine=AVX512).arguments == ()


@pytest.mark.parametrize("extra", [("--dtype", "bfloat16"), ("--dtype=bfloat16",)])
def test_a_users_dtype_stays(extra: tuple[str, ...]) -> None:
    assert tuned(*extra, machine=CPU).arguments == ()


# The KV cache gets half of what is free: of the available, less 3 GiB, the weights and the adapters.


@pytest.mark.parametrize(("available", "chosen"), [(0, 1), (10.9, 1), (11.1, 2), (18.9, 3), (19.1, 4), (500, 4)])
def test_an_unknown_model_gets_a_quarter_and_at_most_four(available: float, chosen: int) -> None:
    assert space(available=available, footprint=None) == chosen


@pytest.mark.parametrize(
    ("available", "chosen"),
    [(19.9, 1), (22.5, 3), (24.5, 5), (40.5, 16), (60.5, 20), (100.5, 40), (2000, 256)],
    ids=[
        "short",
        "all for one that does not fit",
        "nearly one sequence",
        "one sequence",
        "half",
        "half of more",
        "sixteen sequences",
    ],
)
def test_the_kv_cache_by_the_memory_there_is(available: float, chosen: int) -> None:
    assert space(available=available, footprint=LARGE) == chosen


@pytest.mark.parametrize(
    ("extra", "chosen"),
    [
        (("--max-num-seqs", "2"), 32),
        (("--max-num-seqs=2", "--max-model-len", "32768"), 8),
        (("--max-model-len", "1024"), 2),
        (("--max-model-len", "4k"), 98),
        (("--max-model-len", "-1"), 98),
        (("--dtype", "float32", "--max-num-seqs", "2"), 64),
    ],
)
def test_never_more_than_the_sequences_can_use(extra: tuple[str, ...], chosen: int) -> None:
    assert space(*extra, available=216.5, footprint=LARGE) == chosen


def test_weights_that_are_widened_count_twice() -> None:
    assert space("--dtype", "float32", "--max-model-len", "8192", available=43.9, footprint=LARGE) == 4
    wide = dataclasses.replace(LARGE, sixteen_bits=False)
    assert space("--dtype", "float32", "--max-model-len", "8192", available=43.9, footprint=wide) == 12
    assert space("--max-model-len", "8192", available=43.9, footprint=LARGE) == 12
    assert space("--max-model-len", "8192", available=43.9, footprint=LARGE, machine=CPU) == 4


def test_files_that_were_read_count_in_a_container() -> None:
    assert space("--max-model-len", "8192", available=43.9, footprint=LARGE, memory_limited=True) == 4


def test_adapters_count_up_to_half() -> None:
    many = Settings(max_loras=8, max_cpu_loras=64)
    short = ("--max-model-len", "8192")
    assert space(*short, available=43.9, footprint=LARGE, settings=many) == 9
    assert space(*short, available=43.9, footprint=LARGE, settings=many, rank=512) == 6


@pytest.mark.parametrize("available", [0.5, 2, 4, 6, 8, 12, 20, 30])
@pytest.mark.parametrize("limited", [False, True])
def test_never_more_than_there_is(available: float, limited: bool) -> None:
    chosen = space(available=available, memory_limited=limited)
    assert chosen == 1 or chosen + 3 < available


@pytest.mark.parametrize("extra", [("--kv-cache-memory-bytes", "9"), ("--gpu-memory-utilization=0.5",)])
def test_a_users_space_for_the_kv_cache_stays(extra: tuple[str, ...]) -> None:
    for tuning in (tuned(*extra), tuned(environment={"VLLM_CPU_KVCACHE_SPACE": "9"})):
        assert "VLLM_CPU_KVCACHE_SPACE" not in tuning.environment
        assert not notes(tuning, "KV cache")


def test_the_space_is_told_in_tokens_too() -> None:
    chosen = "VLLM_CPU_KVCACHE_SPACE=2: GiB of main memory for the KV cache"
    assert notes(tuned(), "KVCACHE") == [f"{chosen}, about 93,206 tokens"]
    assert notes(tuned("--dtype", "float32"), "KVCACHE") == [f"{chosen}, about 46,603 tokens"]
    assert notes(tuned(footprint=None, memory_available=12 * GIB), "KVCACHE") == [chosen]


def test_too_little_memory_is_told() -> None:
    assert not notes(tuned(), "memory is short")
    short = tuned(memory_available=18 * GIB, footprint=LARGE)
    assert notes(short, "memory is short: 18.0 GiB are available; the weights alone take 16.0. If the engine")
    assert notes(tuned(memory_available=4 * GIB, footprint=None), "memory is short: 4.0 GiB are available. If")


def test_a_context_that_does_not_fit_is_told() -> None:
    tuning = tuned(memory_available=int(24.5 * GIB), footprint=LARGE)
    assert notes(tuning, "one sequence of 131,072 tokens may not fit") == [
        "one sequence of 131,072 tokens may not fit into the KV cache: if the engine does not start, give "
        "`-- --max-model-len 40960`"
    ]
    assert not notes(tuned("--max-model-len", "40960", memory_available=25 * GIB, footprint=LARGE), "may not fit")
    assert not notes(tuned(memory_available=41 * GIB, footprint=LARGE), "may not fit")


# Threads: vLLM's own binding is told, and replaced only where it would go wrong.

FOUR = Topology({0: (0, 1, 2, 3)}, memory_nodes=(0,))


def threads(*extra: str, topology: Topology = FOUR, **environment: str) -> tuple[dict[str, str], list[str]]:
    """The variables for threads, and what is told of them."""
    tuning = tuned(*extra, topology=topology, environment={"VLLM_CPU_KVCACHE_SPACE": "1", **environment})
    variables = {name: value for name, value in tuning.environment.items() if name != "LD_PRELOAD"}
    return variables, [note for note in tuning.notes if "LD_PRELOAD" not in note]


@pytest.mark.parametrize(
    ("cpus", "told"),
    [
        ((0, 1, 2, 3), "threads: CPU 0-2 computes, CPU 3 is left for the rest of the server"),
        ((4, 7), "threads: CPU 4 computes, CPU 7 is left for the rest of the server"),
        ((5,), "threads: CPU 5 computes, no core is left for the rest of the server"),
    ],
)
def test_vllms_own_binding_is_told(cpus: tuple[int, ...], told: str) -> None:
    assert threads(topology=Topology({0: cpus}, memory_nodes=(0,))) == ({}, [told])


def test_the_second_node_is_told_of() -> None:
    variables, told = threads(topology=Topology({0: (0, 1), 1: (2, 3)}, memory_nodes=(0, 1)))
    assert variables == {}
    assert told[0] == "threads: CPU 0 computes, CPU 1 is left for the rest of the server"
    assert told[1].startswith("one of 2 NUMA nodes computes: `-- --tensor-parallel-size 2` uses all")


@pytest.mark.parametrize("memory_nodes", [(0, 1), (0,)])
def test_processors_away_from_the_first_memory_are_bound(memory_nodes: tuple[int, ...]) -> None:
    """vLLM 0.32 looks for processors on the first memory node alone, and starts no thread where there are none."""
    variables, told = threads(topology=Topology({1: (4, 5, 6, 9)}, memory_nodes=memory_nodes))
    assert variables == {"VLLM_CPU_OMP_THREADS_BIND": "4-6"}
    assert told == ["threads: CPU 4-6 computes, CPU 9 is left for the rest of the server"]


@pytest.mark.parametrize(("quota", "count"), [(0.5, "1"), (1.0, "1"), (2.0, "1"), (3.9, "2")])
def test_a_share_of_time_bounds_the_threads(quota: float, count: str) -> None:
    variables, told = threads(topology=dataclasses.replace(FOUR, quota=quota))
    assert variables == {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": count,
        "KMP_BLOCKTIME": "5",
        "KMP_TPAUSE": "0",
    }
    assert told == [f"threads: {count} compute, bound to no CPU, since this container gets {quota:g} CPUs"]


@pytest.mark.parametrize("quota", [4.0, 64.0])
def test_a_share_of_all_bounds_nothing(quota: float) -> None:
    assert threads(topology=dataclasses.replace(FOUR, quota=quota))[0] == {}


def test_a_users_openmp_variables_win() -> None:
    """vLLM 0.32 would overwrite them when it binds threads."""
    variables, told = threads(OMP_NUM_THREADS="2")
    assert variables == {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
    assert told == ["threads: 2 compute, bound to no CPU, since you set OMP_NUM_THREADS"]
    variables, told = threads(KMP_AFFINITY="compact", KMP_BLOCKTIME="9")
    assert variables == {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "3", "KMP_TPAUSE": "0"}
    assert told == ["threads: 3 compute, bound to no CPU, since you set KMP_AFFINITY, KMP_BLOCKTIME"]


@pytest.mark.parametrize(
    "name",
    [
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_CPU_NUM_OF_RESERVED_CPU",
        "VLLM_CPU_SIM_MULTI_NUMA",
        "CPU_VISIBLE_MEMORY_NODES",
    ],
)
def test_who_places_threads_is_left_alone(name: str) -> None:
    crowded = dataclasses.replace(FOUR, quota=1.0)
    assert threads(topology=crowded, **{name: "1", "OMP_NUM_THREADS": "2"}) == ({}, [])


@pytest.mark.parametrize("extra", [("-tp", "2"), ("--tensor-parallel-size=2",), ("--data-parallel-size", "2")])
def test_several_workers_are_left_to_vllm(extra: tuple[str, ...]) -> None:
    assert threads(*extra, topology=dataclasses.replace(FOUR, quota=1.0)) == ({}, [])


def test_without_processors_nothing_is_said() -> None:
    assert threads(topology=Topology()) == ({}, [])


def test_libraries_are_preloaded_and_told() -> None:
    tuning = tuned(environment={"LD_PRELOAD": "/opt/libgomp.so.1"})
    assert tuning.environment["LD_PRELOAD"] == "/opt/libgomp.so.1:/usr/lib/libtcmalloc_minimal.so.4"
    assert notes(tuning, "LD_PRELOAD") == ["LD_PRELOAD: libtcmalloc_minimal.so.4"]
    assert notes(tuned(), "LD_PRELOAD") == ["LD_PRELOAD: libtcmalloc_minimal.so.4, libiomp5.so"]
    bare = tuned(libraries=Libraries())
    assert "LD_PRELOAD" not in bare.environment
    assert not notes(bare, "LD_PRELOAD")
