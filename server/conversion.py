"""Conversion of published adapters to plain LoRA, in a process of its own.

It loads the base model into main memory once more; if that is too much, that process dies, and not the server.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loraloom.adapters.convert.options import Conversion, Options
from loraloom.adapters.errors import AdapterError, BaseMismatch, InvalidAdapter, InvalidBase, UnsupportedAdapter
from loraloom.server.errors import ConversionFailed

_TOLD = (BaseMismatch, UnsupportedAdapter, InvalidAdapter, InvalidBase)
"""What is told from one process to the other, the most special first."""
_PR_SET_PDEATHSIG = 1


class Converter:
    """Converts adapters of one base, one after the other."""

    def __init__(self, base: str) -> None:
        """
        Args:
            base: the model that they are adapters of: a folder, or an id of the Hugging Face Hub.
        """
        self._base = base
        self._turn = threading.Lock()

    def convert(self, folder: Path, out: Path, options: Options) -> Conversion:
        """Write the adapter in `folder` as plain LoRA to the empty folder `out`; blocks until it is done.

        Raises:
            InvalidAdapter, UnsupportedAdapter, BaseMismatch, InvalidBase: as `adapters.convert.convert` does.
            ConversionFailed: the process died.
        """
        given = json.dumps({**asdict(options), "probe": None})
        command = [sys.executable, "-m", "loraloom.server.conversion", str(folder), str(out), self._base, given]
        with self._turn:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            reason = f"was ended by signal {-done.returncode}" if done.returncode < 0 else done.stderr.strip()[-300:]
            raise ConversionFailed(
                f"the process that converts the adapter failed ({reason}). It needs main memory for the base model "
                "once more: convert it on another machine with `loraloom adapters add`"
            )
        return _told(json.loads(lines[-1]))


def _told(result: dict[str, Any]) -> Conversion:
    if "error" in result:
        kind = next(kind for kind in _TOLD if kind.__name__ == result["error"])
        raise kind(result["message"])
    return Conversion(**result)


def main(arguments: Sequence[str]) -> None:
    """In the process of its own: convert, and print a line of JSON."""
    from loraloom.adapters.convert.convert import convert

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("base")
    parser.add_argument("options", type=json.loads)
    given = parser.parse_args(arguments)
    _stand_aside()
    try:
        result = convert(given.folder, given.out, given.base, Options(**given.options)).as_json()
    except _TOLD as error:
        result = {"error": _kind_of(error), "message": str(error)}
    print(json.dumps(result))


def _kind_of(error: AdapterError) -> str:
    return next(kind.__name__ for kind in _TOLD if isinstance(error, kind))


def _stand_aside() -> None:
    """Leave processors and memory to the engine, and end with the server."""
    import torch

    os.nice(10)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 4))
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000")
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
