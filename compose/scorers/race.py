"""Candidates that go over the same rows, side by side, until they are through or given up."""

from collections.abc import Sequence

from loraloom.compose.scoring import Row, RowScore, Stop


class Race:
    """Who is still going, and what is known of each.

    Attributes:
        rows: what they go over.
        going: those that are not given up, by their indices among all of this race; none once all rows are done.
        done: how many rows those have behind them.
        scores: of each candidate, for the rows that it has behind it.
    """

    def __init__(self, candidates: Sequence[int], rows: Sequence[Row], stop: Stop) -> None:
        """
        Args:
            candidates: by the numbers that `stop` knows them by.
        """
        self.rows = rows
        self.going = list(range(len(candidates)))
        self.done = 0
        self.scores: list[list[RowScore]] = [[] for _ in candidates]
        self._candidates = candidates
        self._stop = stop

    def add(self, scores: Sequence[Sequence[RowScore]]) -> list[int] | None:
        """Add the scores of the next rows, of each that is going.

        Returns:
            The places among those of the ones that go on, where some do not; None where nobody is given up.
        """
        for candidate, new in zip(self.going, scores, strict=True):
            self.scores[candidate] += new
        self.done += len(scores[0])
        if self.done == len(self.rows):
            self.going = []
            return None
        places = [place for place, candidate in enumerate(self.going) if not self._given_up(candidate)]
        if len(places) == len(self.going):
            return None
        self.going = [self.going[place] for place in places]
        return places

    def _given_up(self, candidate: int) -> bool:
        return self._stop(self._candidates[candidate], self.scores[candidate])
