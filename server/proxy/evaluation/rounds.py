"""Asking every question of every task of all arms of one server, in turns, so that drift hits all of them alike."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loraloom.server.proxy.evaluation.arms import Arm
from loraloom.server.proxy.evaluation.asking import Asked, Asker, Request
from loraloom.server.proxy.evaluation.task import Task

FILLS = 4
"""How often a round fills the places of requests at once: the more, the less its start and its end count."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Round:
    """What one arm answered to some questions of one task, of which the first is number `first`."""

    task: str
    arm: str
    first: int
    asked: Asked


async def ask_rounds(
    asker: Asker, arms: Sequence[Arm], tasks: Sequence[Task], max_tokens: int, tell: Tell
) -> list[Round]:
    """Ask everything.

    Raises:
        EvaluationFailed: a request got no answer.
    """
    await _warm_up(asker, arms, tasks)
    rounds: list[Round] = []
    for task in tasks:
        for number, (first, last) in enumerate(bounds(len(task.questions), asker.concurrency)):
            for arm in turned([arm for arm in arms if arm.takes(task)], number):
                requests = [arm.request(task, question, max_tokens) for question in task.questions[first:last]]
                rounds.append(Round(task.name, arm.key, first, await asker.ask(requests)))
            tell(f"{task.name}: {last} of {len(task.questions)} questions")
    return rounds


def bounds(count: int, concurrency: int) -> Iterator[tuple[int, int]]:
    """The first and the last question of each round, as slices have them; rounds differ by one question at most."""
    rounds = max(1, round(count / (FILLS * concurrency)))
    for number in range(rounds):
        yield number * count // rounds, (number + 1) * count // rounds


def turned(arms: Sequence[Arm], number: int) -> list[Arm]:
    """The arms in the order of this round: each begins in its turn."""
    at = number % len(arms) if arms else 0
    return [*arms[at:], *arms[:at]]


async def _warm_up(asker: Asker, arms: Sequence[Arm], tasks: Sequence[Task]) -> None:
    """One token of everything, so that no adapter is loaded while the time is taken."""
    requests: list[Request] = [
        arm.request(task, task.questions[0], 1) for task in tasks for arm in arms if arm.takes(task)
    ]
    await asker.ask(requests)
