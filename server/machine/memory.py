"""Main memory: what there is, and what may still be taken."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

LIMITS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""The limit of the control group and what it uses (version 2, then 1)."""
RECLAIMABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")


@dataclass(frozen=True)
class Memory:
    """Main memory, in bytes.

    Attributes:
        total: the machine's, or the control group's share of it.
        available: what may still be taken, counted as vLLM does when it checks the KV cache.
        limited: whether a control group bounds it; files that were read count as used then.
    """

    total: int
    available: int
    limited: bool = False


def read_memory(root: Path = Path("/"), node: int = 0) -> Memory:
    """Read it from the kernel's files under `root`.

    Args:
        root: where the machine's file system begins.
        node: the NUMA node that computes, whose memory vLLM binds itself to.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = min(_available(root), _reclaimable(root, node), total)
    for limit, usage in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # the file is not there, or says "max"
            bound = int((root / limit).read_text())
            if bound < total:
                free = bound - int((root / usage).read_text())
                return Memory(bound, max(0, min(available, free)), limited=True)
    return Memory(total, available)


def _available(root: Path) -> int:
    return _sizes(root / "proc/meminfo").get("MemAvailable", 2**62)


def _reclaimable(root: Path, node: int) -> int:
    sizes = _sizes(root / f"sys/devices/system/node/node{node}/meminfo")
    return sum(sizes.get(name, 0) for name in RECLAIMABLE) if "MemFree" in sizes else 2**62


def _sizes(path: Path) -> dict[str, int]:
    """Bytes by name, from lines such as `MemFree: 1 kB` or `Node 0 MemFree: 1 kB`."""
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.endswith(" kB")]
    except OSError:
        return {}
    return {words[-3].rstrip(":"): int(words[-2]) * 1024 for words in lines}
