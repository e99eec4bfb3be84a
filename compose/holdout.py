"""What the search sees, and what it is judged by: never the same."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from loraloom.compose.errors import InvalidExamples
from loraloom.compose.examples import Example

MOST, MOST_HELD, MOST_LEFT_OUT = 1000, 10_000, 50
"""Examples that a job may learn from; those given for judging alone; and those that may be left out one by one, each of
which takes a search of its own."""
FEW = 10
"""With fewer examples than this none can be spared: each is left out once."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One search.

    Attributes:
        number: 0 is the search whose outcome is kept.
        seen: the examples that it learns from, by their index.
        held: those that its outcome is judged by.
    """

    number: int
    seen: tuple[int, ...]
    held: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Holdout:
    """All examples, and the searches on them.

    Attributes:
        examples: those to learn from, and after them those that were given for judging alone.
        folds: the first is the search whose outcome is kept.
        kind: how they were split, in a few words.
    """

    examples: tuple[Example, ...]
    folds: tuple[Fold, ...]
    kind: str

    @property
    def seen(self) -> int:
        """Examples that the kept search learns from."""
        return len(self.folds[0].seen)

    @property
    def held(self) -> int:
        """Examples that are judged by."""
        return sum(len(fold.held) for fold in self.folds)


def hold_out(examples: Sequence[Example], holdout: str | float | Sequence[Example], seed: int) -> Holdout:
    """Split the examples.

    Args:
        examples: what was given to learn from.
        holdout: "auto", "leave-one-out", a share of the examples, or examples of their own.
        seed: which examples a share takes.

    Raises:
        InvalidExamples: there are too few, or too many; or a prompt is on both sides.
    """
    if len(examples) < 2:
        raise InvalidExamples(f"there is {len(examples)} example to learn from: give 2 at the least, better 5 to 50")
    if len(examples) > MOST:
        raise InvalidExamples(f"there are {len(examples)} examples: give {MOST} at the most, 5 to 50 are enough")
    if holdout == "auto":
        holdout = "leave-one-out" if len(examples) < FEW else 0.5
    if holdout == "leave-one-out":
        return _each_once(tuple(examples))
    if isinstance(holdout, float):
        return _share(tuple(examples), holdout, seed)
    assert not isinstance(holdout, str), "the description allows no other word"
    return _given(tuple(examples), tuple(holdout))


def _each_once(examples: tuple[Example, ...]) -> Holdout:
    _check_distinct(examples)
    if len(examples) > MOST_LEFT_OUT:
        raise InvalidExamples(
            f"leaving each of {len(examples)} examples out once takes as many searches: hold a share of them out, such "
            "as 0.5"
        )
    every = tuple(range(len(examples)))
    folds = [Fold(each + 1, every[:each] + every[each + 1 :], (each,)) for each in every]
    return Holdout(examples, (Fold(0, every, ()), *folds), "leave-one-out")


def _share(examples: tuple[Example, ...], share: float, seed: int) -> Holdout:
    _check_distinct(examples)
    count = round(share * len(examples))
    if not 1 <= count <= len(examples) - 2:
        raise InvalidExamples(
            f"a hold-out of {share:g} of {len(examples)} examples leaves {len(examples) - count} to learn from and "
            f"{count} to judge by: give more examples, another share, or leave-one-out"
        )
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    fold = Fold(0, tuple(sorted(order[count:])), tuple(sorted(order[:count])))
    return Holdout(examples, (fold,), f"{share:g} of the examples")


def _given(examples: tuple[Example, ...], held: tuple[Example, ...]) -> Holdout:
    if len(held) > MOST_HELD:
        raise InvalidExamples(f"there are {len(held):,} held-out examples: give {MOST_HELD:,} at the most")
    _check_distinct(held)
    known = {example.key: number for number, example in enumerate(examples, 1)}
    if leak := next((example for example in held if example.key in known), None):
        raise InvalidExamples(
            f"example {known[leak.key]} is in the hold-out too ({_clipped(leak.prompt)}): a score on what was learned "
            "from says nothing. Take it out of one of them"
        )
    first = len(examples)
    fold = Fold(0, tuple(range(first)), tuple(range(first, first + len(held))))
    return Holdout((*examples, *held), (fold,), "examples of its own")


def _check_distinct(examples: Sequence[Example]) -> None:
    known: dict[str, int] = {}
    for number, example in enumerate(examples, 1):
        if (other := known.setdefault(example.key, number)) != number:
            raise InvalidExamples(
                f"examples {other} and {number} ask the same ({_clipped(example.prompt)}): held out, one would leak "
                "into the other. Take one of them out"
            )


def _clipped(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
