"""Where a job stands, as clients of a server are told."""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from loraloom.compose import jobs

Status: TypeAlias = Literal["queued"] | jobs.Status

_FOLDERS = re.compile(r"(?<![\w/:.])(?:file://)?(?:/[^\s/'\":,;()]+)+/")


@dataclass(frozen=True)
class Standing:
    """Where a job stands, as a server sees it.

    Attributes:
        status: as in `compose.jobs.State`, or "queued": it waits for its turn.
        reason: why it ended before it was done, or what it waits for; else empty.
        trials, best: as in `compose.jobs.State`.
        ahead: jobs that come before it, where it is queued.
    """

    status: Status
    reason: str = ""
    trials: int = 0
    best: float | None = None
    ahead: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing happens any more by itself."""
        return self.status not in ("queued", "running")


def without_folders(reason: str) -> str:
    """Why a job ended, as its process noted it for people on this machine, with the names of files alone."""
    return _FOLDERS.sub("", reason)
