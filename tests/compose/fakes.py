"""A scorer without a model: each row has weights that are best for it."""

from collections.abc import Sequence

from loraloom.compose.scoring import Row, RowScore, Stop, Weights, never


class BowlScorer:
    """A row's loss is 1 nat a token plus the squared distance from the row's best weights.

    Attributes:
        scored: every population that it was asked for.
    """

    def __init__(self, best: Sequence[Weights]) -> None:
        """
        Args:
            best: by the first token of a row's prompt, the weights that are best for it.
        """
        self._best = best
        self.scored: list[list[Weights]] = []
        self.rows = 0
        self.closed = False

    def score(self, population: Sequence[Weights], rows: Sequence[Row], stop: Stop = never) -> list[list[RowScore]]:
        self.scored.append(list(population))
        return [self._one(number, weights, rows, stop) for number, weights in enumerate(population)]

    def _one(self, number: int, weights: Weights, rows: Sequence[Row], stop: Stop) -> list[RowScore]:
        scores: list[RowScore] = []
        for row in rows:
            if scores and stop(number, scores):
                break
            self.rows += 1
            scores.append(self._row(weights, row))
        return scores

    def _row(self, weights: Weights, row: Row) -> RowScore:
        best = self._best[row.prompt[0]]
        loss = 1 + sum((weight - wanted) ** 2 for weight, wanted in zip(weights, best, strict=True))
        return RowScore(loss * len(row.answer), len(row.answer), loss < 1.1)

    def answers(self, weights: Weights, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        return [[round(sum(weights))] for _ in prompts]

    def close(self) -> None:
        self.closed = True
