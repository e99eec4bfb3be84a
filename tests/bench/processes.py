"""What the processes of a server take from the machine."""

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """Of one process, at one moment.

    Attributes:
        rss: main memory, in MiB, with what it shares with others.
        pss: main memory, in MiB, what is shared counted in parts: so that it can be summed over processes.
        own: of `pss`, what are no pages of files: these count for less as soon as any other process maps them too.
        handles: open file descriptors, sockets included.
        threads: threads.
        sockets: connections, listening sockets included.
    """

    rss: float
    pss: float
    own: float
    handles: int
    threads: int
    sockets: int


def usage(root: int) -> dict[str, Usage]:
    """What a process and all below it take now, by their roles; one that ends meanwhile is left out."""
    first = psutil.Process(root)
    found: dict[str, Usage] = {}
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError):
            found[_free(role(process.cmdline(), process.pid == root), found)] = _usage(process)
    return found


def role(command: list[str], first: bool) -> str:
    """What a process of a server is for, by its command line and whether it is the first.

    vLLM names its processes; Python's own helpers name the module that they run.
    """
    words = " ".join(command)
    if first:
        return "supervisor"
    named = next((name for name in ("VLLM::EngineCore", "VLLM::Worker") if name in words), None)
    if named:
        return named.removeprefix("VLLM::").lower()
    helper = next((name for name in ("resource_tracker", "forkserver") if name in words), None)
    return helper or "server"


def _free(name: str, taken: dict[str, Usage]) -> str:
    return next(free for free in _numbered(name) if free not in taken)


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name} {number}"
        number += 1


def _usage(process: psutil.Process) -> Usage:
    memory = _memory(Path(f"/proc/{process.pid}/smaps_rollup"))
    with process.oneshot():
        return Usage(
            rss=memory["Rss"],
            pss=memory["Pss"],
            own=memory["Pss"] - memory["Pss_File"],
            handles=process.num_fds(),
            threads=process.num_threads(),
            sockets=len(process.net_connections(kind="all")),
        )


def _memory(rollup: Path) -> dict[str, float]:
    """The sums over all of a process's mappings, in MiB (Linux, proc_pid_smaps_rollup(5))."""
    lines = (line.split() for line in rollup.read_text(encoding="ascii").splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines}


@contextlib.contextmanager
def standing_still(processes: Collection[int]) -> Iterator[None]:
    """Let processes do nothing for the length of a block."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
