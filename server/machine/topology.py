"""The processors that the engine may use: how they lie in cores and NUMA nodes, and how much of their time there is."""

import contextlib
import os
import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CPUS = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"


@dataclass(frozen=True)
class Topology:
    """Processors by NUMA node.

    Attributes:
        nodes: the processors of each node that vLLM would compute on: those that this process may use, and on x86
            the last one of every core.
        memory_nodes: the nodes whose memory this process may use.
        quota: how many processors' worth of time the control group grants; None without a limit.
    """

    nodes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    memory_nodes: tuple[int, ...] = ()
    quota: float | None = None


def read_topology(root: Path = Path("/"), allowed: Collection[int] | None = None, architecture: str = "") -> Topology:
    """Read it from the kernel's files under `root`.

    Args:
        root: where the machine's file system begins.
        allowed: the processors that may be used; by default those of this process.
        architecture: as `platform.machine` tells it.
    """
    usable = set(os.sched_getaffinity(0) if allowed is None else allowed)
    one_a_core = (architecture or platform.machine()) == "x86_64"
    nodes = {
        node: tuple(sorted(_last_of_each_core(root, mine) if one_a_core else mine))
        for node, cpus in sorted(_nodes(root).items() or {0: usable}.items())
        if (mine := usable & cpus)
    }
    return Topology(nodes, _memory_nodes(root) or tuple(nodes), _quota(root))


def parse(text: str) -> set[int]:
    """The numbers in a list as the kernel writes it, such as `0-3,8`."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def written(numbers: Iterable[int]) -> str:
    """Ascending numbers as the kernel writes them, such as `0-3,8`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def _nodes(root: Path) -> dict[int, set[int]]:
    lists = (root / NODES).glob("node[0-9]*/cpulist")
    return {int(path.parent.name.removeprefix("node")): parse(path.read_text()) for path in lists}


def _last_of_each_core(root: Path, cpus: Iterable[int]) -> Collection[int]:
    last: dict[str, int] = {}
    for cpu in sorted(cpus):
        try:
            core = (root / CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            core = str(cpu)
        last[core] = cpu
    return last.values()


def _memory_nodes(root: Path) -> tuple[int, ...]:
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/status").read_text().splitlines():
            if line.startswith("Mems_allowed_list:"):
                return tuple(sorted(parse(line.partition(":")[2])))
    return ()


def _quota(root: Path) -> float | None:
    """The control group's share of processor time (version 2 or 1)."""
    group = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError, ValueError):  # the file is not there, or says "max"
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        given = int((group / "cpu/cpu.cfs_quota_us").read_text())
        return given / int((group / "cpu/cpu.cfs_period_us").read_text()) if given > 0 else None
    return None
