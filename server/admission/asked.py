"""What a request asks of the queue, and for whom."""

from dataclasses import dataclass
from typing import NamedTuple

from loraloom.server.admission.estimate import Estimate


class Holder(NamedTuple):
    """Whoever waits in one line and holds seats: a key; its jobs stand in a line of their own.

    Attributes:
        key: the key's name.
        background: whether these are its jobs.
    """

    key: str
    background: bool = False


@dataclass(frozen=True)
class Asked:
    """What a request needs to run.

    Attributes:
        key: the name of the key that it comes with.
        adapter: the canonical name of its adapter; None is the plain base model.
        work: what it may take: its sequences are its seats, and the tokens of its prompts are charged when it comes in,
            until those that are computed replace them.
        background: it belongs to a job: everybody else comes first.
    """

    key: str
    adapter: str | None = None
    work: Estimate = Estimate(1, 1, 0)
    background: bool = False

    @property
    def holder(self) -> Holder:
        """In whose line it waits."""
        return Holder(self.key, self.background)
