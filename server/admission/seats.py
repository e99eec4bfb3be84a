"""Seats: the sequences that the engine runs at a time, and who holds how many of them.

The last `reserve` free seats are only for keys that would hold no more than that: so a key that sends one request
finds a seat, whatever another one floods the server with.
"""

from collections import Counter

from loraloom.server.admission.asked import Holder


class Seats:
    """Gives seats out and takes them back."""

    def __init__(self, total: int, reserve: int) -> None:
        """
        Args:
            total: seats that there are.
            reserve: those of them that a key with many cannot have.
        """
        self._total = total
        self._reserve = reserve
        self._held: Counter[Holder] = Counter()
        self.free = total

    def held(self, holder: Holder) -> int:
        """The seats of one holder."""
        return self._held.get(holder, 0)

    def fit(self, holder: Holder, seats: int, gatherer: Holder | None = None) -> bool:
        """Whether a holder can have so many more now.

        Args:
            holder: who wants them.
            seats: how many.
            gatherer: who, before it, needs more than there are: what becomes free is kept for it, so all that others
                can have meanwhile is the reserve.
        """
        left = self.free - seats
        if left < 0:
            return False
        held = self.held(holder)
        modest = held + seats <= self._reserve and not holder.background
        if gatherer is not None:
            return modest and self._others(gatherer) + seats <= self._reserve
        return left >= self._reserve or modest or (seats > 1 and self._all_for(holder))

    def take(self, holder: Holder, seats: int) -> None:
        """Give seats out that fit."""
        self._held[holder] += seats
        self.free -= seats
        assert self.free >= 0, "no seat is given out twice"

    def give_back(self, holder: Holder, seats: int) -> None:
        """Take them back."""
        self._held[holder] -= seats
        self.free += seats
        if not self._held[holder]:
            del self._held[holder]

    def _all_for(self, holder: Holder) -> bool:
        """Whether others hold no more than the reserve: then a large request has all that it can ever have."""
        return not holder.background and not self.held(holder) and self._others(holder) <= self._reserve

    def _others(self, holder: Holder) -> int:
        return self._total - self.free - self.held(holder)
