"""What is minimised: from the scores of rows to one number.

loss         negative log-likelihood of the right answers' tokens, in nats a token
exact_match  share of answers that greedy decoding does not give; ties are broken by the loss
choice       share of examples where another choice is likelier; ties are broken by the loss
"""

from collections.abc import Sequence
from dataclasses import dataclass

from loraloom.compose.result import Measured
from loraloom.compose.scoring import Row, RowScore

TIE = 0.01
"""Weight of the loss where it only breaks ties: 100 nats a token count as much as one answer in each."""
WORST = 1e6
"""Stands for a loss that is no number any more, since weights were too large."""


@dataclass(frozen=True, slots=True)
class Question:
    """One example as rows.

    Attributes:
        rows: one for the answer; for `choice`, one for each choice.
        right: the index of the right one.
    """

    rows: tuple[Row, ...]
    right: int = 0


@dataclass(frozen=True)
class Task:
    """Examples as rows, and what their scores are worth.

    Attributes:
        objective: "loss", "exact_match" or "choice".
        questions: at least one.
    """

    objective: str
    questions: tuple[Question, ...]

    @property
    def rows(self) -> list[Row]:
        """All rows, question by question."""
        return [row for question in self.questions for row in question.rows]

    def only(self, questions: Sequence[int]) -> "Task":
        """The same with some of the questions, by their index."""
        return Task(self.objective, tuple(self.questions[each] for each in questions))

    def each(self, scores: Sequence[RowScore]) -> "list[tuple[Task, Sequence[RowScore]]]":
        """Each question by itself, with its scores."""
        parts, start = [], 0
        for question in self.questions:
            parts.append((Task(self.objective, (question,)), scores[start : start + len(question.rows)]))
            start += len(question.rows)
        return parts

    def loss(self, scores: Sequence[RowScore]) -> float:
        """Nats a token of the right answers; what it is at least where the last rows have no score."""
        tokens = sum(len(question.rows[question.right].answer) for question in self.questions)
        return min(sum(right.nll for _, right in self._answered(scores)) / tokens, WORST)

    def value(self, scores: Sequence[RowScore]) -> float:
        """What is minimised, penalties aside; what it is at least where the last rows have no score."""
        loss = self.loss(scores)
        if self.objective == "loss":
            return loss
        wrong = sum(not self._is_right(rows, right) for rows, right in self._answered(scores))
        return wrong / len(self.questions) + TIE * min(loss, 1 / TIE)

    def measured(self, scores: Sequence[RowScore]) -> list[Measured]:
        """Each question by itself: nats of its tokens, or 1 for a right answer."""
        answered = self._answered(scores)
        if self.objective == "loss":
            return [Measured(min(right.nll, WORST), float(right.tokens)) for _, right in answered]
        return [Measured(float(self._is_right(rows, right)), 1.0) for rows, right in answered]

    def exact(self, scores: Sequence[RowScore]) -> float:
        """Share of the questions whose right answer greedy decoding gives."""
        answered = self._answered(scores)
        return sum(right.exact for _, right in answered) / len(answered)

    def _answered(self, scores: Sequence[RowScore]) -> list[tuple[Sequence[RowScore], RowScore]]:
        """The scores of each question all of whose rows have one, and among them that of the right answer."""
        found, start = [], 0
        for question in self.questions:
            rows = scores[start : start + len(question.rows)]
            start += len(question.rows)
            if len(rows) == len(question.rows):
                found.append((rows, rows[question.right]))
        return found

    def _is_right(self, rows: Sequence[RowScore], right: RowScore) -> bool:
        if self.objective == "choice":
            return all(right.nll < other.nll for other in rows if other is not right)
        return right.exact
