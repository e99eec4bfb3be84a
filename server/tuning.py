"""What `serve` chooses for an engine on a CPU, where the user has not: precision, KV cache, threads, libraries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import ceil

from loraloom.server.footprint import Footprint
from loraloom.server.machine import Machine
from loraloom.server.machine.preload import preload
from loraloom.server.machine.topology import Topology, written
from loraloom.server.settings import Settings

GIB = 2**30
PROCESSES = 3 * GIB
"""What the server's and the engine's processes take themselves."""
SEQUENCES = 16
"""How many of full length the KV cache is made for at most, where `--max-num-seqs` does not say."""
UNKNOWN = 4
"""GiB of KV cache at most where the model's sizes are unknown."""

PLACING = (
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_CPU_NUM_OF_RESERVED_CPU",
    "VLLM_CPU_SIM_MULTI_NUMA",
    "CPU_VISIBLE_MEMORY_NODES",
)
"""Variables by which a user places threads in vLLM's own way."""
OPENMP = (
    "OMP_NUM_THREADS",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "KMP_TPAUSE",
)
"""Variables that vLLM overwrites when it binds threads."""
PARALLEL = ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp")


@dataclass(frozen=True)
class Tuning:
    """What was chosen.

    Attributes:
        arguments: for vLLM.
        environment: variables for the engine.
        notes: what the user is told, a line each.
    """

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def tune(
    settings: Settings,
    rank: int,
    extra: Sequence[str],
    machine: Machine,
    footprint: Footprint | None,
    environment: Mapping[str, str],
) -> Tuning:
    """Choose what the user has not.

    Args:
        settings: the merged settings.
        rank: the largest rank that is served.
        extra: the user's own arguments for vLLM.
        machine: what there is to run on.
        footprint: the base model's sizes; None where they are not known.
        environment: the user's environment.
    """
    if not machine.on_cpu:
        return Tuning()
    precision = _precision(extra, machine)
    wide = given([*precision.arguments, *extra], "--dtype") in ("float32", "float")
    parts = (
        precision,
        _kv_space(Needs(settings, rank, extra, footprint, wide), machine, environment),
        _threads(extra, machine.topology, environment),
        _preload(machine, environment),
    )
    return Tuning(
        tuple(argument for part in parts for argument in part.arguments),
        {name: value for part in parts for name, value in part.environment.items()},
        tuple(note for part in parts for note in part.notes),
    )


def given(extra: Sequence[str], flag: str) -> str | None:
    """The value that the user gave to an argument of vLLM; the last one counts, as in vLLM."""
    value = None
    for word, following in zip_longest(extra, extra[1:], fillvalue=""):
        name, equals, attached = word.partition("=")
        # vLLM's parser takes an argument's first letters for the whole.
        if len(name) > 2 and flag.startswith(name.replace("_", "-")):
            value = attached if equals else following
    return value


def _precision(extra: Sequence[str], machine: Machine) -> Tuning:
    if machine.fast_bfloat16 or given(extra, "--dtype") is not None:
        return Tuning()
    note = "--dtype float32: without AVX512, bfloat16 is three times slower on this CPU"
    return Tuning(("--dtype", "float32"), notes=(note,))


@dataclass(frozen=True)
class Needs:
    """What the engine needs of memory besides its processes, in bytes.

    Attributes:
        wide: whether it computes in float32.
    """

    settings: Settings
    rank: int
    extra: Sequence[str]
    footprint: Footprint | None
    wide: bool

    @property
    def number(self) -> int:
        """Bytes of one number."""
        return 4 if self.wide else 2

    def weights(self, size: Footprint, machine: Machine) -> int:
        """The base's weights in memory; where a control group counts them, their files in the page cache too."""
        widened = 2 if self.wide and size.sixteen_bits else 1
        return size.weights * (widened + machine.memory_limited)

    def adapters(self, size: Footprint) -> int:
        """At most: every slot and every place in the CPU tier taken by an adapter of the largest rank."""
        return (self.settings.max_loras + self.settings.max_cpu_loras) * self.rank * size.rank * self.number

    def length(self, size: Footprint) -> int:
        """The longest sequence, in tokens."""
        return _number(self.extra, "--max-model-len") or size.context

    def sequence(self, size: Footprint) -> int:
        """The KV cache of one sequence of full length, at most."""
        return self.length(size) * size.token * self.number


def _number(extra: Sequence[str], flag: str) -> int | None:
    value = given(extra, flag) or ""
    return int(value) if value.isdecimal() else None


def _kv_space(needs: Needs, machine: Machine, environment: Mapping[str, str]) -> Tuning:
    chosen = given(needs.extra, "--kv-cache-memory-bytes") or given(needs.extra, "--gpu-memory-utilization")
    if chosen or "VLLM_CPU_KVCACHE_SPACE" in environment:
        return Tuning()
    free, space = kv_space(needs, machine)
    notes = (_space_note(needs, space), *_short_of_memory(needs, machine, free, space))
    return Tuning(environment={"VLLM_CPU_KVCACHE_SPACE": str(space)}, notes=notes)


def kv_space(needs: Needs, machine: Machine) -> tuple[int, int]:
    """What is free for the KV cache, and what it gets, in GiB.

    What is free is the available memory without the processes, the weights and the adapters (these count at most half
    of what is left, since the bound on them is far above what most stores take). The cache gets half of that, or
    more where one sequence of full length needs more; never more than its sequences can use, and at least 1 GiB.
    """
    left = max(0, machine.memory_available - PROCESSES)
    size = needs.footprint
    if size is None:
        return left // 2 // GIB, max(1, min(UNKNOWN, left // 4 // GIB))
    left = max(0, left - needs.weights(size, machine))
    free = (left - min(needs.adapters(size), left // 2)) // GIB
    one = needs.sequence(size)
    most = ceil(one * (_number(needs.extra, "--max-num-seqs") or SEQUENCES) / GIB)
    return free, max(1, min(free, most, max(free // 2, ceil(one / GIB))))


def _space_note(needs: Needs, space: int) -> str:
    note = f"VLLM_CPU_KVCACHE_SPACE={space}: GiB of main memory for the KV cache"
    if needs.footprint is None:
        return note
    return f"{note}, about {space * GIB // (needs.footprint.token * needs.number):,} tokens"


def _short_of_memory(needs: Needs, machine: Machine, free: int, space: int) -> Iterator[str]:
    size = needs.footprint
    if free < 1:
        model = f"; the weights alone take {needs.weights(size, machine) / GIB:.1f}" if size else ""
        yield (
            f"memory is short: {machine.memory_available / GIB:.1f} GiB are available{model}. If the engine does not "
            "start, free some, or lower --max-cpu-loras and --max-loras"
        )
    if size and needs.sequence(size) > space * GIB:
        fits = space * GIB // (size.token * needs.number) // 128 * 128
        yield (
            f"one sequence of {needs.length(size):,} tokens may not fit into the KV cache: if the engine does not "
            f"start, give `-- --max-model-len {fits}`"
        )


def _threads(extra: Sequence[str], topology: Topology, environment: Mapping[str, str]) -> Tuning:
    """vLLM binds one thread to each core of the first NUMA node but the last; this steps in where that goes wrong."""
    placed = any(name in environment for name in PLACING) or any(given(extra, flag) is not None for flag in PARALLEL)
    if placed or not topology.nodes:
        return Tuning()
    first = topology.memory_nodes[0]
    node = first if first in topology.nodes else min(topology.nodes)
    computing = topology.nodes[node][:-1] or topology.nodes[node]
    if yours := [name for name in OPENMP if name in environment]:
        return _unbound(len(computing), environment, f"since you set {', '.join(yours)}")
    share = max(1, int(topology.quota or len(computing) + 1) - 1)
    if share < len(computing):
        return _unbound(share, environment, f"since this container gets {topology.quota:g} CPUs")
    chosen = {} if node == first else {"VLLM_CPU_OMP_THREADS_BIND": written(computing)}
    return Tuning(environment=chosen, notes=tuple(_thread_notes(topology, node, computing)))


def _unbound(threads: int, environment: Mapping[str, str], why: str) -> Tuning:
    """As vLLM sets it up when it binds, but for the binding."""
    chosen = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    waiting = {"KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
    added = {name: value for name, value in (chosen | waiting).items() if name not in environment}
    count = environment.get("OMP_NUM_THREADS", threads)
    return Tuning(environment=added, notes=(f"threads: {count} compute, bound to no CPU, {why}",))


def _thread_notes(topology: Topology, node: int, computing: Sequence[int]) -> Iterator[str]:
    left = [cpu for cpu in topology.nodes[node] if cpu not in computing]
    rest = f"CPU {written(left)} is" if left else "no core is"
    yield f"threads: CPU {written(computing)} computes, {rest} left for the rest of the server"
    if (nodes := len(topology.nodes)) > 1:
        yield (
            f"one of {nodes} NUMA nodes computes: `-- --tensor-parallel-size {nodes}` uses all, where the model's "
            "attention heads can be divided so"
        )


def _preload(machine: Machine, environment: Mapping[str, str]) -> Tuning:
    chosen = preload(machine.libraries, environment)
    names = ", ".join(library.name for library in machine.libraries.beside(environment))
    return Tuning(environment=chosen, notes=(f"LD_PRELOAD: {names}",) if chosen else ())
