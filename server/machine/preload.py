"""Libraries that the engine's processes load before all others on a CPU: a faster allocator and OpenMP runtime."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc")
OPENMP = ("libiomp", "libomp", "libgomp")
"""What the names of such libraries contain."""
SYSTEM = ("usr/local/lib", "usr/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/lib64", "lib64", "usr/lib", "lib")
TCMALLOC = ("libtcmalloc_minimal*.so*", "libtcmalloc.so*")
"""The first is the allocator alone, without a profiler."""


@dataclass(frozen=True)
class Libraries:
    """What was found on this machine and can be loaded.

    Attributes:
        allocator: tcmalloc; None where there is none.
        openmp: Intel's OpenMP runtime; None where there is none.
    """

    allocator: Path | None = None
    openmp: Path | None = None

    def beside(self, environment: Mapping[str, str]) -> tuple[Path, ...]:
        """Those that the user's LD_PRELOAD leaves to be added: none where it is set to nothing, or has its kind."""
        given = environment.get("LD_PRELOAD")
        if given == "":
            return ()
        kinds = ((self.allocator, ALLOCATORS), (self.openmp, OPENMP))
        return tuple(library for library, names in kinds if library and not _named(names, given))


def preload(libraries: Libraries, environment: Mapping[str, str]) -> dict[str, str]:
    """LD_PRELOAD with the libraries after the user's own; empty where there is nothing to add."""
    added = [str(library) for library in libraries.beside(environment)]
    given = environment.get("LD_PRELOAD")
    return {"LD_PRELOAD": ":".join([given, *added] if given else added)} if added else {}


def missing(libraries: Libraries, architecture: str, environment: Mapping[str, str]) -> Iterator[str]:
    """What would make the engine faster and is not there, and how to get it."""
    given = environment.get("LD_PRELOAD")
    if not libraries.allocator and not _named(ALLOCATORS, given):
        yield "no tcmalloc, a faster allocator: `apt install libtcmalloc-minimal4`, or `dnf install gperftools-libs`"
    if not libraries.openmp and not _named(OPENMP, given) and architecture == "x86_64":
        yield "no libiomp5.so, which vLLM recommends: `pip install intel-openmp`"


def find(
    root: Path = Path("/"), prefix: Path = Path(sys.prefix), loads: Callable[[Path], bool] | None = None
) -> Libraries:
    """Look for the libraries.

    Args:
        root: where the machine's file system begins.
        prefix: where Python's packages put their libraries, under `lib`.
        loads: whether a library can be preloaded; by default it is tried.
    """
    loads = loads or can_be_preloaded
    return Libraries(
        allocator=next((path for path in _allocators(root, prefix) if loads(path)), None),
        openmp=next((path for path in (prefix / "lib").glob("libiomp5.so") if loads(path)), None),
    )


def can_be_preloaded(library: Path) -> bool:
    """Try it with a Python that does nothing: the loader complains of a library that it cannot use."""
    command = (sys.executable, "-I", "-S", "-c", "")
    try:
        tried = subprocess.run(
            command, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return tried.returncode == 0 and not tried.stderr


def _allocators(root: Path, prefix: Path) -> Iterator[Path]:
    """Every tcmalloc, the best first: the one that vLLM brings, the environment's, the system's."""
    engine = find_spec("vllm")
    bundled = [Path(place) / "libs" for place in engine.submodule_search_locations or ()] if engine else []
    system = [folder for pattern in SYSTEM for folder in sorted(root.glob(pattern))]
    for pattern in TCMALLOC:
        for folder in (*bundled, prefix / "lib", *system):
            yield from sorted(folder.glob(pattern))


def _named(names: tuple[str, ...], given: str | None) -> bool:
    """Whether LD_PRELOAD has a library of such a name, as vLLM looks for it: anywhere in the text."""
    return any(name in (given or "") for name in names)
