"""Which names have a label of their own in the metrics: those most asked for, however many names there are."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)

OTHER = "other"
"""The label of all names that have none of their own."""


class Labels(Generic[Name]):
    """Gives up to `top` names a label of their own: at first whoever comes, then whoever is asked for more.

    It counts the requests of eight names for each label, by the algorithm of Misra and Gries: where a name comes that
    there is no room for, every count is lowered by one. What is asked for in more than one of `8 * top` requests is
    always among them. Counts are halved from time to time, so that the names of last week give way. A newcomer takes
    a label only when it is asked for more than twice as often as who has it: series that come and go cost more than
    they tell, and mixtures that are asked for once must not push out anybody.
    """

    def __init__(self, top: int, fade: int = 20_000) -> None:
        """
        Args:
            top: how many names have a label of their own.
            fade: after so many requests the counts are halved.
        """
        self._top = top
        self._fade = fade
        self._counts: dict[Name, int] = {}
        self._own: dict[Name, None] = {}  # in the order in which they got their labels
        self._noted = 0
        self._bar = 0  # no name can have a label for fewer requests

    def note(self, name: Name) -> Name | None:
        """Note that a name was asked for.

        Returns:
            The name that lost its label by that, if one did.
        """
        if not self._top:
            return None
        self._noted += 1
        if self._noted % self._fade == 0:
            self._lower({each: count // 2 for each, count in self._counts.items()})
        count = self._count(name)
        if name in self._own:
            return None
        if len(self._own) < self._top:
            self._own[name] = None
            return None
        return self._replace(name) if count > self._bar else None

    def drop(self, name: Name) -> None:
        """Forget a name."""
        self._own.pop(name, None)
        self._counts.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._own

    def _count(self, name: Name) -> int:
        if name not in self._counts and len(self._counts) >= 8 * self._top:
            self._lower({each: count - 1 for each, count in self._counts.items()})
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return count

    def _lower(self, counts: dict[Name, int]) -> None:
        self._counts = {name: count for name, count in counts.items() if count > 0}
        self._bar = 0

    def _replace(self, name: Name) -> Name | None:
        """Give a name the label of the one that is asked for least, if that is so much less."""
        least = min(self._own, key=lambda each: self._counts.get(each, 0))
        self._bar = 2 * self._counts.get(least, 0) + 8
        if self._counts[name] <= self._bar:
            return None
        del self._own[least]
        self._own[name] = None
        return least
