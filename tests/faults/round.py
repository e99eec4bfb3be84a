"""What came of making a fault once, and of all the times that it was made."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Round:
    """One time.

    Attributes:
        seconds: until the first good answer again; None if it did not come.
        whole: seconds until every adapter answered, versions could be published and /ready said so; None as above.
        asked: how requests for adapters ended from the fault's beginning until then.
        published: the same of publishing.
        ready: the same of /ready.
        lost: versions that were acknowledged before or meanwhile, and are missing, changed or damaged.
        unlike: in which way this was not as promised; empty if it was.
    """

    seconds: float | None
    whole: float | None
    asked: Mapping[str, int]
    published: Mapping[str, int]
    ready: Mapping[str, int]
    wrong: int
    lost: int
    unlike: str = ""


@dataclass(frozen=True)
class Result:
    """All times.

    Attributes:
        name: of the fault.
        what: the same in words.
        how: how it was made.
        rounds: each time; none where this machine does not permit to make it.
        skipped: why not; empty otherwise.
    """

    name: str
    what: str
    how: str
    rounds: Sequence[Round]
    skipped: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing was wrong or lost, and nobody had to help."""
        return not (self.wrong or self.lost or self.helped or self.unlike)

    @property
    def unlike(self) -> list[str]:
        """In which ways times were not as promised."""
        return [each.unlike for each in self.rounds if each.unlike]

    @property
    def wrong(self) -> int:
        return sum(each.wrong for each in self.rounds)

    @property
    def lost(self) -> int:
        """The most of any time: what is lost stays lost, and would be counted again."""
        return max((each.lost for each in self.rounds), default=0)

    @property
    def helped(self) -> int:
        """Times after which the service did not come back by itself."""
        return sum(each.whole is None for each in self.rounds)

    @property
    def median(self) -> float | None:
        seconds = self._seconds
        return statistics.median(seconds) if seconds else None

    @property
    def worst(self) -> float | None:
        return max(self._seconds, default=None)

    @property
    def worst_whole(self) -> float | None:
        return max((each.whole for each in self.rounds if each.whole is not None), default=None)

    @property
    def asked(self) -> dict[str, int]:
        return summed(each.asked for each in self.rounds)

    @property
    def published(self) -> dict[str, int]:
        return summed(each.published for each in self.rounds)

    @property
    def ready(self) -> dict[str, int]:
        return summed(each.ready for each in self.rounds)

    @property
    def _seconds(self) -> list[float]:
        return [each.seconds for each in self.rounds if each.seconds is not None]


def together(earlier: Sequence[Result], later: Sequence[Result]) -> list[Result]:
    """The times of two campaigns; a fault that the earlier left out is made if the later made it."""
    more = {each.name: each for each in later}
    joined: list[Result] = []
    for each in earlier:
        again = more.pop(each.name, None)
        joined.append(each if again is None else replace(again, rounds=[*each.rounds, *again.rounds]))
    return [*joined, *more.values()]


def summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts of several times together, the most frequent first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total.most_common())
