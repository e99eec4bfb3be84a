"""Work on adapters that takes long and much memory, in a process of its own: the server goes on beside it.

There is one such process at a time. If its memory does not suffice it is the first that the kernel ends; where a
control group is ended as a whole, as Kubernetes does, the check before it starts must do.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loraloom.adapters.convert.options import Conversion, Options
from loraloom.adapters.errors import (
    AdapterError,
    BaseMismatch,
    DamagedBlob,
    InvalidAdapter,
    InvalidBase,
    InvalidMixture,
    UnsupportedAdapter,
)
from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.adapters.methods import Method
from loraloom.adapters.mixtures.mix import Limit, Outcome, mix
from loraloom.adapters.names import parse_method
from loraloom.server.aside import stand_aside, threads
from loraloom.server.errors import OfflineBusy, OfflineFailed
from loraloom.server.footprint import read_footprint
from loraloom.server.machine.memory import read_memory

log = logging.getLogger("vllm.loraloom.offline")

TOLD = (BaseMismatch, UnsupportedAdapter, InvalidAdapter, InvalidBase, InvalidMixture)
"""What is told from one process to the other, the most special first."""
PATIENCE = 3600.0
"""Seconds that one piece of work may take."""


class Offline:
    """Does one piece of work at a time; every call blocks until its own is done.

    Raises, in all methods:
        OfflineBusy: another one is being done, or there is not enough memory for it now.
        OfflineFailed: the process died.
    """

    def __init__(self, scratch: Path) -> None:
        """
        Args:
            scratch: a folder for what the process needs for a while.
        """
        self._scratch = scratch
        self._turn = threading.Lock()

    def convert(self, folder: Path, out: Path, base: str, options: Options) -> Conversion:
        """Write the adapter in `folder` as plain LoRA to the empty folder `out`.

        Args:
            folder: the adapter.
            out: where it goes.
            base: the model that it is of: a folder, or an id of the Hugging Face Hub.
            options: what the conversion may lose.

        Raises:
            InvalidAdapter, UnsupportedAdapter, BaseMismatch, InvalidBase: as `adapters.convert.convert` does.
        """
        _check_memory_to_convert(base)
        wanted = {"folder": str(folder), "out": str(out), "base": base, "options": asdict(options)}
        return Conversion(**self._done("convert", wanted))

    def mix(self, method: Method, sources: Sequence[tuple[float, Path]], out: Path, limit: Limit | None) -> Outcome:
        """Write the mixture of adapters to the empty folder `out`, of its true rank.

        Raises:
            InvalidMixture: as `adapters.mixtures.mix` does.
        """
        _check_memory_to_mix([folder for _, folder in sources])
        wanted = {
            "method": str(method),
            "sources": [(weight, str(folder)) for weight, folder in sources],
            "out": str(out),
            "limit": limit and asdict(limit),
        }
        return Outcome(**self._done("mix", wanted))

    def _done(self, job: str, wanted: Mapping[str, object]) -> dict[str, Any]:
        if not self._turn.acquire(blocking=False):
            raise OfflineBusy("another adapter is being converted or mixed: try again when that is done")
        try:
            return _told(self._run([sys.executable, "-m", "loraloom.server.offline", job, json.dumps(wanted)]))
        finally:
            self._turn.release()

    def _run(self, command: Sequence[str]) -> str:
        environment = {**os.environ, "TMPDIR": str(self._scratch)}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise OfflineFailed(f"it was not done within {PATIENCE:.0f} s: {_ELSEWHERE}") from error
        if done.returncode == -signal.SIGKILL:
            raise OfflineFailed(f"the process was ended, probably for lack of main memory: {_ELSEWHERE}")
        if done.returncode:
            log.error("%s failed with status %d:\n%s", command[3], done.returncode, done.stderr[-4000:])
            raise OfflineFailed(f"the process failed; the server's log has the reason. If it persists, {_ELSEWHERE}")
        return done.stdout


_ELSEWHERE = "do it on another machine, with `loraloom adapters add` or `loraloom adapters mix`"


def _check_memory_to_convert(base: str) -> None:
    """The base is loaded once more, and half as much again is taken by what is computed."""
    footprint = read_footprint(Path(base))
    if footprint is not None:
        _check_memory(1.5 * footprint.weights, "conversion", "loraloom adapters add")


def _check_memory_to_mix(folders: Sequence[Path]) -> None:
    """About three times the bytes of the adapters are taken; of one that is not there it is told later."""
    files = [folder / WEIGHTS_FILE for folder in folders]
    _check_memory(
        3.0 * sum(file.stat().st_size for file in files if file.is_file()), "mixture", "loraloom adapters mix"
    )


def _check_memory(needed: float, what: str, command: str) -> None:
    available = read_memory().available
    if available < needed:
        raise OfflineBusy(
            f"the {what} needs about {needed / 2**30:.1f} GiB of main memory, and {available / 2**30:.1f} GiB are "
            f"free: try again later, or use `{command}` elsewhere"
        )


def _told(printed: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    if "refused" in result:
        kind = next(kind for kind in TOLD if kind.__name__ == result["refused"])
        raise kind(result["message"])
    return result


def _convert(wanted: Mapping[str, Any]) -> dict[str, object]:
    from loraloom.adapters.convert.convert import convert

    options = Options(**{**wanted["options"], "probe": None})
    return convert(Path(wanted["folder"]), Path(wanted["out"]), wanted["base"], options).as_json()


def _mix(wanted: Mapping[str, Any]) -> dict[str, object]:
    sources = [(weight, Path(folder)) for weight, folder in wanted["sources"]]
    limit = wanted["limit"] and Limit(**wanted["limit"])
    return asdict(mix(parse_method(wanted["method"]), sources, Path(wanted["out"]), limit=limit, compact=True))


_JOBS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {"convert": _convert, "mix": _mix}


def main(arguments: Sequence[str]) -> None:
    """In the process of its own: do it, and print a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=_JOBS)
    parser.add_argument("wanted", type=json.loads)
    given = parser.parse_args(arguments)
    _compute_aside()
    try:
        result = _JOBS[given.job](given.wanted)
    except TOLD as error:
        result = {"refused": _kind_of(error), "message": str(error)}
    except DamagedBlob as error:
        result = {"refused": InvalidAdapter.__name__, "message": str(error)}
    print(json.dumps(result))


def _kind_of(error: AdapterError) -> str:
    return next(kind.__name__ for kind in TOLD if isinstance(error, kind))


def _compute_aside() -> None:
    import torch

    stand_aside(nice=10)
    torch.set_num_threads(threads())


if __name__ == "__main__":
    main(sys.argv[1:])
