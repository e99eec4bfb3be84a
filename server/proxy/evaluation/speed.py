"""How fast each arm of one server writes: answers of one fixed length, whatever the arm would have said.

Tokens per second while questions are answered tell little of a price: an arm with short answers spends its time on
reading prompts, one with long answers on writing. Here every arm writes as much, nonsense if need be.
"""

from collections.abc import Mapping, Sequence

from loraloom.server.proxy.evaluation.arms import Arm
from loraloom.server.proxy.evaluation.asking import Asker, Request
from loraloom.server.proxy.evaluation.rounds import turned
from loraloom.server.proxy.evaluation.task import Task

LENGTH = 32
"""Tokens of an answer."""
FILLS = 2


async def time_writing(
    asker: Asker, arms: Sequence[Arm], tasks: Sequence[Task], rounds: int
) -> Mapping[str, tuple[float, ...]]:
    """Tokens per second of each arm in each round, by the arm's key.

    Raises:
        EvaluationFailed: a request got no answer.
    """
    found: dict[str, list[float]] = {arm.key: [] for arm in arms}
    for number in range(rounds):
        for arm in turned(arms, number):
            asked = await asker.ask(_requests(arm, tasks, FILLS * asker.concurrency, number))
            found[arm.key].append(asked.tokens_per_second)
    return {key: tuple(speeds) for key, speeds in found.items() if speeds}


def _requests(arm: Arm, tasks: Sequence[Task], count: int, number: int) -> list[Request]:
    """Questions of all tasks that the arm takes, in turns."""
    taken = [task for task in tasks if arm.takes(task)]
    places = [divmod(number * count + place, len(taken)) for place in range(count)]
    pairs = [(taken[which], taken[which].questions[at % len(taken[which].questions)]) for at, which in places]
    return [{**arm.request(task, question, LENGTH), "ignore_eos": True} for task, question in pairs]
