"""`trials.jsonl`: every trial of a job, one line each, on the disk before the search goes on."""

import os
from collections.abc import Sequence
from pathlib import Path

from loraloom.compose.errors import DamagedJob
from loraloom.compose.trials import Trial, read_trial


class TrialLog:
    """Appends trials, and gives back those of earlier runs. One process at a time writes it."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was not written to its end is cut off.

        Raises:
            DamagedJob: a line is no trial.
            OSError: the file cannot be read or written.
        """
        self._path = path
        path.touch()
        whole = _whole(path.read_bytes())
        os.truncate(path, len(whole))
        self._known = {(trial.fold, trial.trial): trial for trial in map(read_trial, whole.decode().splitlines())}

    def get(self, fold: int, trial: int) -> Trial | None:
        """A trial of an earlier run."""
        return self._known.get((fold, trial))

    def append(self, trials: Sequence[Trial]) -> None:
        """Write the trials that are new at once, and wait until the disk has them.

        Raises:
            OSError: it cannot be written; the disk may be full.
        """
        new = [trial for trial in trials if (trial.fold, trial.trial) not in self._known]
        with self._path.open("ab", buffering=0) as file:
            _write(file.fileno(), "".join(trial.line() for trial in new).encode())
            os.fsync(file.fileno())
        self._known.update({(trial.fold, trial.trial): trial for trial in new})


def read_trials(path: Path) -> list[Trial]:
    """The trials in a log, which another process may be writing.

    Raises:
        DamagedJob: a line is no trial.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return [read_trial(line) for line in _whole(data).decode().splitlines()]


def _whole(data: bytes) -> bytes:
    """All but a line that was not written to its end."""
    whole = data[: data.rfind(b"\n") + 1]
    try:
        whole.decode()
    except UnicodeDecodeError as error:
        raise DamagedJob(f"the log of trials is no text: {error}. Start the job anew") from error
    return whole


def _write(descriptor: int, data: bytes) -> None:
    """All of it: a single call may write a part only."""
    while data:
        data = data[os.write(descriptor, data) :]
