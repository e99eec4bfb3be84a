"""Compiles the fused LoRA kernel for this machine's processor, once; needs a C compiler, and neither torch nor vLLM."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("lora.c")
COMPILERS = ("cc", "gcc", "clang")
ALWAYS = ("-O3", "-std=c11", "-shared", "-fPIC")
CHOICES = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())
"""The first that works is taken: what it is told for this very processor, and several threads."""
PATIENCE = 120.0
"""Seconds that one attempt may take; one and a half are usual."""


class CannotBuild(Exception):
    """There is no kernel that runs here; the message says why. LoRA is computed with torch then, more slowly."""


def library(cache: Path, flags: Iterable[str]) -> Path:
    """Where the kernel for such a processor lies, if it was built.

    Args:
        cache: folder for what can be made again.
        flags: the processor's features, as the system tells them.
    """
    key = hashlib.sha256(SOURCE.read_bytes())
    key.update(" ".join([platform.machine(), *sorted(flags)]).encode())
    return cache / "kernels" / f"lora-{key.hexdigest()[:16]}.so"


def build(cache: Path, flags: Iterable[str]) -> Path:
    """The kernel for such a processor, which is this machine's; compiled and tried now if it is not there yet.

    Raises:
        CannotBuild: there is no compiler, or what it makes does not work.
    """
    built = library(cache, flags)
    if built.is_file():
        return built
    compiler = find_compiler()
    built.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built.parent, prefix="build-") as scratch:
        new = Path(scratch) / built.name
        problems = list(_attempts(compiler, new))
        if len(problems) == len(CHOICES):
            raise CannotBuild(f"{compiler} makes no kernel that works here: {problems[-1]}")
        os.replace(new, built)
    return built


def find_compiler() -> str:
    """The path of a C compiler.

    Raises:
        CannotBuild: there is none.
    """
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise CannotBuild("there is no C compiler: `apt install gcc`, or `dnf install gcc`")
    return compiler


def _attempts(compiler: str, new: Path) -> Iterator[str]:
    """Compile until it works; what went wrong before."""
    for choice in CHOICES:
        problem = _run([compiler, *ALWAYS, *choice, str(SOURCE), "-o", str(new)]) or _run(_trial(new))
        if problem is None:
            return
        yield problem


def _trial(new: Path) -> list[str]:
    """In a process of its own: an instruction that the processor lacks would end this one."""
    return [sys.executable, "-m", "loraloom.server.kernels.trial", str(new)]


def _run(command: list[str]) -> str | None:
    """The last line of what a command complains of; None if it succeeds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return next((line for line in lines if "error" in line), lines[-1])
