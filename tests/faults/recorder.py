"""What clients saw: each request, when it began and ended, and how."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.errors import CampaignError

ASK, PUBLISH, READY = "ask", "publish", "ready"
"""Who saw it: a client that asks an adapter, one that publishes versions, and one that asks /ready."""
GOOD = "good"
"""How a request ends that is answered right."""
WRONG = "WRONG ANSWER"
"""How one ends that is answered with 200 and something else."""
_PACE = 0.05


@dataclass(frozen=True)
class Seen:
    """One request.

    Attributes:
        began, ended: by `time.monotonic`.
        who: what kind of client sent it.
        about: the model that was asked for.
        how: `GOOD`, `WRONG`, or the status and code of an error, or what became of the connection.
    """

    began: float
    ended: float
    who: str
    about: str
    how: str


@dataclass
class Recorder:
    """All requests of a campaign, in the order in which they ended."""

    seen: list[Seen] = field(default_factory=list)

    def note(self, began: float, who: str, about: str, how: str) -> None:
        """A request has ended just now."""
        self.seen.append(Seen(began, time.monotonic(), who, about, how))

    def good_since(self, moment: float, who: str) -> list[Seen]:
        """The requests that began after a moment and were answered right."""
        return [each for each in self.seen if each.who == who and each.began >= moment and each.how == GOOD]

    def between(self, began: float, ended: float) -> list[Seen]:
        """The requests that ended in this time."""
        return [each for each in self.seen if began <= each.ended <= ended]

    @property
    def wrong(self) -> list[Seen]:
        return [each for each in self.seen if each.how == WRONG]

    def is_back(self, moment: float, models: Iterable[str]) -> bool:
        """Whether, since then, every model has answered right, a version was published, and /ready has said 200."""
        answered = {each.about for each in self.good_since(moment, ASK)}
        return answered >= set(models) and all(self.good_since(moment, who) for who in (PUBLISH, READY))


def counts(seen: Sequence[Seen], who: str) -> dict[str, int]:
    """How the requests of one kind of client ended, the most frequent first."""
    return dict(Counter(each.how for each in seen if each.who == who).most_common())


async def until(check: Callable[[], bool], patience: float, what: str) -> float:
    """Return the seconds until a check comes true; raises `CampaignError` when it does not."""
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > patience:
            raise CampaignError(f"{what}: not within {patience:g} s")
        await asyncio.sleep(_PACE)
    return time.monotonic() - began
