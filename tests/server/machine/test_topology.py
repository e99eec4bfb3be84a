"""Processors in cores and NUMA nodes, from a small copy of the system's files."""

from pathlib import Path

import pytest

from loraloom.server.machine.topology import Topology, parse, read_topology, written
from tests.server.machine.test_machine import write

CPUS = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"


@pytest.fixture
def two_nodes(tmp_path: Path) -> Path:
    """Two nodes of two cores, two processors a core: 0 and 4 share one, 1 and 5, and so on."""
    write(tmp_path / NODES / "node0/cpulist", "0-1,4-5\n")
    write(tmp_path / NODES / "node1/cpulist", "2-3,6-7\n")
    write(tmp_path / NODES / "node2/cpulist", "\n")
    for cpu in range(8):
        write(tmp_path / CPUS / f"cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    write(tmp_path / "proc/self/status", "Name:\tpython\nMems_allowed_list:\t0-1\n")
    return tmp_path


def test_the_last_processor_of_each_core(two_nodes: Path) -> None:
    assert read_topology(two_nodes, range(8), "x86_64") == Topology({0: (4, 5), 1: (6, 7)}, memory_nodes=(0, 1))


def test_every_processor_elsewhere(two_nodes: Path) -> None:
    assert read_topology(two_nodes, range(8), "aarch64").nodes == {0: (0, 1, 4, 5), 1: (2, 3, 6, 7)}


def test_only_what_may_be_used(two_nodes: Path) -> None:
    assert read_topology(two_nodes, {2, 6, 7}, "x86_64").nodes == {1: (6, 7)}
    assert read_topology(two_nodes, {2}, "x86_64").nodes == {1: (2,)}


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert read_topology(tmp_path, {1, 0}, "x86_64") == Topology({0: (0, 1)}, memory_nodes=(0,), quota=None)


def test_this_machine() -> None:
    topology = read_topology()
    assert all(cpus for cpus in topology.nodes.values())
    assert topology.memory_nodes


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_share_of_time(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        write(tmp_path / "sys/fs/cgroup" / name, text)
    assert read_topology(tmp_path, {0}).quota == quota


@pytest.mark.parametrize("text", ["", "0", "0-3", "0-3,8", "1,3,5-6"])
def test_lists_of_numbers(text: str) -> None:
    assert written(sorted(parse(text + "\n"))) == text
