"""A job that somebody watches: of its log only what is new is read at each look."""

from pathlib import Path

from loraloom.compose.errors import DamagedJob
from loraloom.compose.jobs import Job
from loraloom.compose.trials import Trial, read_trial


class FollowedJob(Job):
    """A job that remembers the trials that it has read. One look at a time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._read: list[Trial] = []
        self._offset = 0

    def trials(self) -> list[Trial]:
        """All trials so far, in a list that grows; raises `DamagedJob`."""
        try:
            with (self.folder / "trials.jsonl").open("rb") as log:
                log.seek(self._offset)
                new = log.read()
        except FileNotFoundError:
            return self._read
        whole = new[: new.rfind(b"\n") + 1]
        try:
            self._read += [read_trial(line) for line in whole.decode().splitlines()]
        except UnicodeDecodeError as error:
            raise DamagedJob(f"the log of trials is no text: {error}. Start the job anew") from error
        self._offset += len(whole)
        return self._read
