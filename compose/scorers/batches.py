"""Rows as the model takes them, and the scores that its answer amounts to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from loraloom.compose.scoring import RowScore


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some rows, laid out in lines of tokens; every candidate is run on the same.

    Attributes:
        tokens: [lines, length].
        inputs: what else the model takes, of one candidate: each is [lines, …], or [1, …] where all lines share it.
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
        """The model's arguments for so many candidates."""
        lines = len(self.tokens)
        repeated = {
            name: value.repeat(candidates, *[1] * (value.ndim - 1)) if len(value) == lines else value
            for name, value in {"input_ids": self.tokens, **self.inputs}.items()
        }
        return {**repeated, "logits_to_keep": self.keep}

    def scores(self, logits: Tensor) -> list[list[RowScore]]:
        """Each candidate's scores of the rows, from logits of shape [candidates * lines, kept, vocabulary]."""
        flat = logits.reshape(-1, len(self.tokens) * len(self.keep), logits.shape[-1]).float()
        wanted = flat[:, self.place, self.target]
        nll = (flat.logsumexp(-1)[:, self.place] - wanted).tolist()
        right = (flat.argmax(-1)[:, self.place] == self.target).tolist()
        return [self._rows(*each) for each in zip(nll, right, strict=True)]

    def _rows(self, nll: Sequence[float], right: Sequence[bool]) -> list[RowScore]:
        rows, first = [], 0
        for length in self.lengths:
            part = slice(first, first + length)
            rows.append(_score(nll[part], right[part]))
            first += length
        return rows


def _score(nll: Sequence[float], right: Sequence[bool]) -> RowScore:
    total = math.fsum(nll) if all(map(math.isfinite, nll)) else math.inf
    return RowScore(total, len(nll), all(right) and total < math.inf)
