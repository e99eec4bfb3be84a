"""Which answers are right, while adapters come and go: what a selection may stand for, and who answers how.

A request names a selection: the base, an adapter, a tag, a version. Behind each is a behaviour, that of the base or of
one of the demo's adapters, and what each behaviour answers to a prompt is known before the soak begins.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

BASE = "smollm2"
"""The behaviour, and the name, of the base model."""
GONE = None
"""What a selection stands for when there is no such adapter, tag or version."""


class Verdict(Enum):
    """What an answer shows."""

    RIGHT = "right"
    WRONG_ADAPTER = "of another adapter"
    UNLIKE_ANY = "wrong, and of no adapter"
    UNDECIDED = "of no adapter, to a prompt that none of those asked was trained for"
    REFUSED = "refused, and should not have been"
    NOT_REFUSED = "answered, and should have been refused"


FAULTS = (Verdict.WRONG_ADAPTER, Verdict.UNLIKE_ANY, Verdict.REFUSED, Verdict.NOT_REFUSED)


class Standing:
    """What a selection stands for, told by the one client that changes it.

    A request that is in flight during a change may meet the state before or after it, and one that begins after the
    change was answered must meet the state after it.
    """

    def __init__(self, behaviour: str | None) -> None:
        self._behaviours: list[str | None] = [behaviour]
        self._settled = 0

    @property
    def now(self) -> str | None:
        """After the last change that was answered."""
        return self._behaviours[self._settled]

    def begin(self, behaviour: str | None) -> None:
        """A change is about to be asked for."""
        self._behaviours.append(behaviour)

    def settle(self) -> None:
        """All changes have been answered."""
        self._settled = len(self._behaviours) - 1

    def mark(self) -> int:
        """When a request begins; for `since`."""
        return self._settled

    def since(self, mark: int) -> set[str | None]:
        """What the selection may have stood for at any time from then until now."""
        return set(self._behaviours[mark:])


@dataclass(frozen=True)
class Case:
    """A prompt to which behaviours answer differently.

    Attributes:
        prompt: the user's message.
        expected: the right answer.
        adapter: the one behaviour that gives it.
        seen: what each behaviour answered before the soak.
    """

    prompt: str
    expected: str
    adapter: str
    seen: Mapping[str, str]

    @property
    def tells(self) -> bool:
        """Whether its adapter answers right, and nobody else does."""
        return self.authors(self.expected) == {self.adapter}

    def authors(self, answer: str) -> set[str | None]:
        """The behaviours that answered so."""
        return {behaviour for behaviour, text in self.seen.items() if text.strip() == answer.strip()}

    def verdict(self, answer: str | None, allowed: Iterable[str | None]) -> Verdict:
        """Judge an answer.

        Exact equality is asked of an adapter's own task only, where the model is sure: elsewhere a near tie may fall
        the other way in another batch. There it must not be what somebody else answers.

        Args:
            answer: the text; None if the selection was said not to exist.
            allowed: what the selection may have stood for.
        """
        may = set(allowed)
        if answer is None:
            return Verdict.RIGHT if GONE in may else Verdict.REFUSED
        if may == {GONE}:
            return Verdict.NOT_REFUSED
        authors = self.authors(answer)
        if authors & may:
            return Verdict.RIGHT
        if authors:
            return Verdict.WRONG_ADAPTER
        return Verdict.UNLIKE_ANY if may <= {self.adapter, GONE} else Verdict.UNDECIDED
