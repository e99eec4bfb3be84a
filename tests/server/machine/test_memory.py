"""Main memory, from a small copy of the system's files."""

from pathlib import Path

import pytest

from loraloom.server.machine.memory import LIMITS, Memory, read_memory
from tests.server.machine.test_machine import write

NODE = """Node 0 MemTotal:       1000 kB
Node 0 MemFree:          10 kB
Node 0 Active:           99 kB
Node 0 Active(file):      1 kB
Node 0 Inactive(file):    2 kB
Node 0 SReclaimable:      3 kB
Node 0 HugePages_Total:     4
"""
KIB = 1024


def test_what_may_still_be_taken(tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal: 1000 kB\nMemAvailable:   20 kB\nHugePages_Total: 0\n")
    assert read_memory(tmp_path).available == 20 * KIB
    write(tmp_path / "sys/devices/system/node/node0/meminfo", NODE)
    assert read_memory(tmp_path).available == 16 * KIB
    assert read_memory(tmp_path, node=1).available == 20 * KIB
    assert not read_memory(tmp_path).limited


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    memory = read_memory(tmp_path)
    assert memory == Memory(memory.total, memory.total, limited=False)
    assert memory.total > 2**20


@pytest.mark.parametrize(("limit", "usage"), LIMITS)
def test_a_containers_share(tmp_path: Path, limit: str, usage: str) -> None:
    write(tmp_path / limit, f"{64 * KIB}\n")
    write(tmp_path / usage, f"{24 * KIB}\n")
    assert read_memory(tmp_path) == Memory(64 * KIB, 40 * KIB, limited=True)
    write(tmp_path / "sys/devices/system/node/node0/meminfo", NODE)
    assert read_memory(tmp_path) == Memory(64 * KIB, 16 * KIB, limited=True)
    write(tmp_path / usage, f"{65 * KIB}\n")
    assert read_memory(tmp_path).available == 0


@pytest.mark.parametrize("unlimited", ["max\n", f"{2**62}\n"])
def test_a_container_without_a_limit(tmp_path: Path, unlimited: str) -> None:
    limit, usage = LIMITS[0]
    write(tmp_path / limit, unlimited)
    write(tmp_path / usage, "1\n")
    assert not read_memory(tmp_path).limited
