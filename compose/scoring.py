"""What a scorer is asked, and what it answers: the seam between a search and the model.

A candidate is a weighting of the pool: one number an adapter, in the pool's order. A row is a prompt and one answer to
it, as token ids. A scorer tells how likely the base model with the weighted adapters makes each answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Weights: TypeAlias = tuple[float, ...]
"""A candidate: the weight of each adapter of the pool, in the pool's order."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer to one prompt.

    Attributes:
        prompt: token ids, at least one.
        answer: token ids, at least one, with the one that ends the turn.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.prompt, "a row has a prompt"
        assert self.answer, "a row has an answer"

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class RowScore:
    """How a candidate does on one row.

    Attributes:
        nll: negative log-likelihood of the answer's tokens given the prompt, in nats, summed.
        tokens: of the answer.
        exact: greedy decoding gives exactly this answer: each of its tokens is the likeliest at its place.
    """

    nll: float
    tokens: int
    exact: bool


Stop: TypeAlias = Callable[[int, Sequence[RowScore]], bool]
"""Whether a candidate, by its index in the population, can be given up, from the scores of its first rows."""


def never(candidate: int, scores: Sequence[RowScore]) -> bool:
    """The `Stop` that gives no candidate up."""
    return False


class Scorer(Protocol):
    """Scores weightings of one pool of adapters.

    The same population and rows give the same scores, to the bit where the scorer says so.
    """

    def score(self, population: Sequence[Weights], rows: Sequence[Row], stop: Stop = never) -> list[list[RowScore]]:
        """Score candidates.

        Args:
            population: at least one candidate; weights of 0 everywhere are the base model.
            rows: what each is scored on, at least one.
            stop: asked now and then; a scorer may ignore it.

        Returns:
            For each candidate the scores of the rows, in their order; of the first of them only where it was given up.

        Raises:
            InvalidPool: the adapters cannot be mixed with these weights.
            Interrupted: the scorer has lost what it works with, and the job can go on later.
        """
        ...

    def answers(self, weights: Weights, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        """The greedy continuations of prompts under one candidate.

        Args:
            weights: the candidate.
            prompts: token ids, at least one each.
            limit: the largest number of new tokens.

        Returns:
            For each prompt its new token ids, without the one that ends the turn.
        """
        ...

    def close(self) -> None:
        """Give up what the scorer holds."""
        ...
