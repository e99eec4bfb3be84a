"""What one request cost so far: filled by the gate and the engine's meter, read when the request has ended."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from loraloom.server.access.access import ANYONE, Access

Ending: TypeAlias = Literal["answered", "refused", "disconnected", "failed"]
"""How a request ended: with an answer, refused with an error below 500, by its client, or by an error from 500 on."""

Spent: TypeAlias = Callable[[int, int], None]
"""Told of tokens as they are computed: how many of the prompt, and how many of the answer, since it was last told."""


@dataclass
class Account:
    """One request's account; all times are of `time.monotonic`, in seconds, but `at`.

    Attributes:
        id: the request's, unique, in logs, traces and the answer's header `x-request-id`.
        method, path: what was asked; the path is the opened one's pattern, such as `/v1/adapters/{name}`.
        access: who asks.
        model: the canonical name of what ran; empty where nothing was selected.
        at: when it began, as `time.time` says.
        began: when it began.
        admitted: when it left the queue at the edge; None if it has not, or had none to wait in.
        leased: when its adapter was in the engine's memory.
        first, last: when the engine gave its first and its latest token.
        engine_queued: seconds that it waited in the engine's own queue.
        prompt, cached, output: tokens of the prompt, those of them that were in the prefix cache, and of the answer.
        estimated: whether `output` is an estimate, because the request was aborted before the engine told it.
        intervals: seconds between tokens, one for each token after the first that the engine gave by itself.
        status: of the answer; 0 before there is one.
        ending: how it ended; None while it runs.
        spent: whoever wants to be told of its tokens as they come.
    """

    id: str
    method: str = ""
    path: str = ""
    access: Access = ANYONE
    model: str = ""
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    admitted: float | None = None
    leased: float | None = None
    first: float | None = None
    last: float | None = None
    engine_queued: float | None = None
    prompt: int = 0
    cached: int = 0
    output: int = 0
    estimated: bool = False
    intervals: list[float] = field(default_factory=list)
    status: int = 0
    ending: Ending | None = None
    spent: list[Spent] = field(default_factory=list)

    def count(self, prompt: int, output: int) -> None:
        """Add tokens that the engine has computed since it was last told."""
        self.prompt += prompt
        self.output += output
        for each in self.spent:
            each(prompt, output)


CURRENT: ContextVar[Account | None] = ContextVar("loraloom_account", default=None)
"""The account of the request in whose task this is; None outside of requests, as for the server's own probes."""
