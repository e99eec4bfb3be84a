"""Places: the adapters whose requests run, at most as many as the engine can have in one batch.

The engine itself takes whatever is next in its own queue if there is a slot for its adapter, and so an adapter that is
not in a slot waits for as long as requests for the others keep coming. Here it waits `hold` seconds at most before
room is made for it: one of the adapters that run becomes the victim, whose requests that wait are not let in until
those that run have ended; then its place is kept for the one that is due. A place that drains leaves seats idle if the
other adapters have too few requests for them, so a quarter of the places do at a time: in a simulation with 40
adapters in 8 places all of them at once would cost a tenth of the seats, and a quarter costs 2%.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from loraloom.server.admission.asked import Holder


@dataclass(eq=False)
class _Place:
    """An adapter whose requests run.

    Attributes:
        opened: when the first of them came in.
        holders: whose they are, and how many of each.
    """

    opened: float
    holders: Counter[Holder] = field(default_factory=Counter)

    @property
    def foreground(self) -> bool:
        """Whether it serves others than jobs."""
        return not all(holder.background for holder in self.holders)


DRAINING = 4
"""One place in so many drains at a time, and at least one."""


class Places:
    """Gives places for adapters out, and decides which adapter has to go for one that is due."""

    def __init__(self, total: int, reserve: int, hold: float) -> None:
        """
        Args:
            total: adapters that run at a time.
            reserve: 1 if the last place is only for keys that have none, else 0.
            hold: seconds that a request may be passed over for want of a place, and that an adapter stays at least.
        """
        self._total = total
        self._reserve = min(reserve, total - 1)
        self._hold = hold
        self._places: dict[str, _Place] = {}
        self._held: Counter[Holder] = Counter()
        self._passed: dict[str, tuple[float, Holder]] = {}  # when first, and whose; longest ago first
        self._due: dict[str, Holder] = {}  # the same order
        self._draining: dict[str, None] = {}  # a set in the order in which they were chosen

    def has_room(self, adapter: str, holder: Holder) -> bool:
        """Whether a request for an adapter can run now."""
        if adapter in self._places:
            return adapter not in self._draining
        return self._may_open(adapter, holder)

    def pass_over(self, adapter: str, holder: Holder, now: float) -> None:
        """It was the turn of a request, and there was no room for its adapter. No room is ever made for jobs."""
        if adapter not in self._passed and not holder.background:
            self._passed[adapter] = now, holder

    def forget(self, adapter: str, holder: Holder) -> None:
        """No request of a holder waits for an adapter any more."""
        if adapter in self._passed and self._passed[adapter][1] == holder:
            del self._passed[adapter]

    def make_room(self, now: float) -> None:
        """See which adapters are due, and let others drain for them, for the first of them first."""
        if not self._passed:
            self._due, self._draining = {}, {}
            return
        self._due = {name: holder for name, (since, holder) in self._passed.items() if now - since >= self._hold}
        lacking = [holder for name, holder in self._due.items() if not self._settled(name, holder)]
        del lacking[max(1, self._total // DRAINING) :]
        while len(self._draining) > len(lacking):
            self._draining.popitem()
        for holder in lacking[len(self._draining) :]:
            victim = min(self._candidates(now), key=lambda name: self._worth(name, holder), default=None)
            if victim is None:
                return
            self._draining[victim] = None

    def take(self, adapter: str, holder: Holder, now: float) -> None:
        """A request for an adapter comes in."""
        place = self._places.get(adapter)
        if place is None:
            place = self._places[adapter] = _Place(now)
            assert len(self._places) <= self._total, "no place is given out twice"
        if holder not in place.holders:
            self._held[holder] += 1
        place.holders[holder] += 1
        self._passed.pop(adapter, None)
        self._due.pop(adapter, None)

    def give_back(self, adapter: str, holder: Holder) -> None:
        """It has ended."""
        place = self._places[adapter]
        place.holders[holder] -= 1
        if place.holders[holder]:
            return
        del place.holders[holder]
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]
        if not place.holders:
            del self._places[adapter]
            self._draining.pop(adapter, None)

    def _may_open(self, adapter: str, holder: Holder) -> bool:
        """Whether there is a place that is neither kept for those that are due before it, nor the last for others.

        Who has no place comes before who has some: only those that have none either are before it.
        """
        modest = holder not in self._held and not holder.background
        ahead = sum(not (modest and other in self._held) for other in self._due_before(adapter))
        return self._total - len(self._places) - ahead > (0 if modest else self._reserve)

    def _due_before(self, adapter: str) -> Iterator[Holder]:
        for name, holder in self._due.items():
            if name == adapter:
                return
            yield holder

    def _settled(self, adapter: str, holder: Holder) -> bool:
        """Whether nothing has to drain for an adapter that is due: it still drains itself, or there is room."""
        return adapter in self._places or self._may_open(adapter, holder)

    def _candidates(self, now: float) -> Iterator[str]:
        """What may be made to drain: all that have run for long enough to be worth the way."""
        for name, place in self._places.items():
            if name not in self._draining and now - place.opened >= self._hold:
                yield name

    def _worth(self, adapter: str, due: Holder) -> tuple[bool, int, bool, int, float]:
        """What is the least of these goes first.

        What only jobs need; then what belongs to whoever has the most places, to whoever the room is for, and
        what will have drained soonest, which is what has the fewest requests; and at last what has run longest.
        """
        place = self._places[adapter]
        most = min(self._held[holder] for holder in place.holders)
        return place.foreground, -most, due not in place.holders, place.holders.total(), place.opened
