"""Virtual token counters: what each key has been served, as far as it matters for whose turn it is.

After Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024, https://arxiv.org/abs/2401.00588),
algorithm 2. Two keys that always have requests waiting are served the same but for a constant, however many requests
each of them sends and however long they are.
"""

from collections.abc import Iterable

from loraloom.server.admission.asked import Holder

PROMPT_WEIGHT = 1
"""What a token of a prompt counts."""
OUTPUT_WEIGHT = 2
"""What a token of an answer counts: as in the paper, since it takes a step of its own."""


class Counters:
    """A counter for each holder: the smallest is next. One number is kept for each key that ever asked."""

    def __init__(self) -> None:
        self._served: dict[Holder, int] = {}
        self._last: Holder | None = None

    def of(self, holder: Holder) -> int:
        """What a holder has been served."""
        return self._served.get(holder, 0)

    def lift(self, holder: Holder, waiting: Iterable[Holder]) -> None:
        """Take a holder's credit for the time in which it wanted nothing; call it when its first request waits.

        Args:
            holder: whose request it is.
            waiting: the others that have requests waiting.
        """
        least = min(map(self.of, waiting), default=None)
        if least is None:
            least = self.of(self._last) if self._last else 0
        self._served[holder] = max(self.of(holder), least)

    def release(self, holder: Holder, prompt: int) -> None:
        """A request of a holder comes in; its prompt is charged at once, or all seats would go to one key."""
        self._last = holder
        self.charge(holder, prompt, 0)

    def charge(self, holder: Holder, prompt: int, output: int) -> None:
        """Count tokens; a negative number takes back what was charged too much."""
        self._served[holder] = self.of(holder) + PROMPT_WEIGHT * prompt + OUTPUT_WEIGHT * output
