"""Rows as the model takes them, and the scores that its answer amounts to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from loraloom.compose.scorers.stacks import at_least_float32
from loraloom.compose.scoring import RowScore


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some rows, laid out in lines of tokens; every candidate is run on the same.

    Attributes:
        tokens: [lines, length].
        inputs: what else the model takes, of one candidate, each [lines, …].
        keep: [kept], the places within a line at which logits are wanted.
        place: [answer tokens], of all rows: the logits that predict it, as an index of the flattened [lines, kept].
        target: [answer tokens], their ids.
        lengths: how many of the answer tokens are each row's.
    """

    tokens: Tensor
    inputs: dict[str, Tensor]
    keep: Tensor
    place: Tensor
    target: Tensor
    lengths: tuple[int, ...]

    def arguments(self, candidates: int) -> dict[str, Any]:
        """The model's arguments for so many candidates, `keep` left out."""
        given = {"input_ids": self.tokens, **self.inputs}
        return {name: value.repeat(candidates, *[1] * (value.ndim - 1)) for name, value in given.items()}

    def scores(self, logits: Tensor) -> list[list[RowScore]]:
        """Each candidate's scores of the rows, from logits of shape [candidates * lines, kept, vocabulary]."""
        kept = logits.reshape(-1, len(self.tokens) * len(self.keep), logits.shape[-1])
        return [self._rows(each) for each in kept]

    def _rows(self, logits: Tensor) -> list[RowScore]:
        """One candidate's; one at a time, since a large vocabulary's logits of many would not fit any cache."""
        nll = -logits.log_softmax(-1, dtype=at_least_float32(logits.dtype))[self.place, self.target]
        right = logits.argmax(-1)[self.place] == self.target
        return self._cut(nll.tolist(), right.tolist())

    def _cut(self, nll: Sequence[float], right: Sequence[bool]) -> list[RowScore]:
        rows, first = [], 0
        for length in self.lengths:
            part = slice(first, first + length)
            rows.append(_score(nll[part], right[part]))
            first += length
        return rows


def _score(nll: Sequence[float], right: Sequence[bool]) -> RowScore:
    total = math.fsum(nll) if all(map(math.isfinite, nll)) else math.inf
    return RowScore(total, len(nll), all(right) and total < math.inf)
