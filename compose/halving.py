"""Successive halving over examples: the worse half of a population is scored on half of the examples only.

One round of Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
(https://arxiv.org/abs/1502.07943).
"""

from collections.abc import Sequence

from loraloom.compose.objective import Task
from loraloom.compose.scoring import RowScore, Scorer, Stop, Weights

LEAST = 4
"""Examples from which on half of them tell something."""


def halved(
    scorer: Scorer, task: Task, population: Sequence[Weights], penalties: Sequence[float], stop: Stop
) -> list[list[RowScore]]:
    """The scores of a population, of all examples for its better half.

    Args:
        scorer: scores.
        task: the examples.
        population: the candidates.
        penalties: of each, which is added to what its examples are worth.
        stop: as for `Scorer.score`.
    """
    if len(population) < 2 or len(task.questions) < LEAST:
        return scorer.score(population, task.rows, stop)
    rows = task.rows
    cut = sum(len(question.rows) for question in task.questions[: len(task.questions) // 2])
    scores = scorer.score(population, rows[:cut], stop)
    going = _better_half(task, scores, penalties, cut)

    def later(place: int, more: Sequence[RowScore]) -> bool:
        return stop(going[place], [*scores[going[place]], *more])

    if going:
        rest = scorer.score([population[each] for each in going], rows[cut:], later)
        for each, more in zip(going, rest, strict=True):
            scores[each] = [*scores[each], *more]
    return scores


def _better_half(task: Task, scores: Sequence[Sequence[RowScore]], penalties: Sequence[float], cut: int) -> list[int]:
    """Of those that were scored so far without being given up."""
    whole = [each for each, rows in enumerate(scores) if len(rows) == cut]
    whole.sort(key=lambda each: task.value(scores[each]) + penalties[each])
    return sorted(whole[: -(-len(scores) // 2)])
