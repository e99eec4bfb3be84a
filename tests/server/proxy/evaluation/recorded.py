"""An asker without a server that writes down what it is asked."""

from collections.abc import Sequence
from typing import Any

from loraloom.server.proxy.evaluation.asking import Answer, Asked, Asker, Request


class Recorded(Asker):
    """Says the prompt again; each call takes a second.

    Attributes:
        calls: the requests of each call.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.calls: list[list[dict[str, Any]]] = []

    async def ask(self, requests: Sequence[Request]) -> Asked:
        self.calls.append([dict(request) for request in requests])
        answers = (Answer(each["messages"][-1]["content"], 5, each["max_tokens"], cut=False) for each in requests)
        return Asked(tuple(answers), 1.0)
