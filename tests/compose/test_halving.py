"""Successive halving over examples."""

from collections.abc import Sequence

import pytest

from loraloom.compose.halving import halved
from loraloom.compose.objective import Question, Task
from loraloom.compose.scoring import Row, RowScore, never
from tests.compose.fakes import BowlScorer

TASK = Task("loss", tuple(Question((Row((0,), (5, 6)),)) for _ in range(5)))
POPULATION = [(1.5,), (0.5,), (0.4,), (-1.0,), (0.0,)]


def test_the_better_half_is_scored_on_all_examples() -> None:
    scorer = BowlScorer([(0.5,)])
    scores = halved(scorer, TASK, POPULATION, [0.0] * 5, never)
    assert [len(rows) for rows in scores] == [2, 5, 5, 2, 5]
    assert scorer.scored == [POPULATION, [(0.5,), (0.4,), (0.0,)]]
    whole = BowlScorer([(0.5,)]).score(POPULATION, TASK.rows)
    assert [scores[place] for place in (1, 2, 4)] == [whole[place] for place in (1, 2, 4)]


def test_penalties_count() -> None:
    scores = halved(BowlScorer([(0.5,)]), TASK, POPULATION, [0.0, 9.0, 0.0, 0.0, 0.0], never)
    assert [len(rows) for rows in scores] == [5, 2, 5, 2, 5]


def test_who_was_given_up_does_not_go_on() -> None:
    def stop(candidate: int, scores: Sequence[RowScore]) -> bool:
        return candidate in (1, 2) and (candidate == 1 or len(scores) >= 3)

    scores = halved(BowlScorer([(0.5,)]), TASK, POPULATION, [0.0] * 5, stop)
    assert [len(rows) for rows in scores] == [5, 1, 3, 2, 5]


@pytest.mark.parametrize(("population", "questions"), [(1, 5), (5, 3)])
def test_few_are_scored_as_they_are(population: int, questions: int) -> None:
    scorer = BowlScorer([(0.5,)])
    task = TASK.only(range(questions))
    assert halved(scorer, task, POPULATION[:population], [0.0] * 5, never) == scorer.score(
        POPULATION[:population], task.rows
    )
