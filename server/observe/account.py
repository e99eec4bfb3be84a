"""What one request cost so far: filled by the gate and the engine's meter, read when the request has ended."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from loraloom.server.access.access import NOBODY, Access
from loraloom.server.observe.histogram import BETWEEN, Histogram

Ending: TypeAlias = Literal["answered", "refused", "disconnected", "failed"]
"""How a request ended: with an answer, refused with an error below 500, by its client, or by an error from 500 on."""

Spent: TypeAlias = Callable[[int, int], None]
"""Told of tokens as they are computed: how many of the prompt, and how many of the answer, since it was last told."""

LONGEST_ID = 128
"""Characters of a client's own name of its request that are kept."""


class Call(Protocol):
    """What a request has asked of the engine and what has not ended yet."""

    def settle(self) -> None:
        """Stop it; count what was computed and not told, and nothing from now on; a second time does nothing."""


@dataclass
class Account:
    """One request's account; all times are of `time.monotonic`, in seconds, but `at`.

    Attributes:
        id: the request's, unique, in logs, traces and the answer's header `x-request-id`.
        client_id: what the client calls it, by its own header `x-request-id`; see `printable`.
        method, path: what was asked; the path is the opened one's pattern, such as `/v1/adapters/{name}`.
        access: who asks.
        model: the canonical name of what ran; empty where nothing was selected.
        at: when it began, as `time.time` says.
        began: when it began.
        queued: when it began to wait in the queue at the edge.
        admitted: when it left the queue at the edge; None if it has not, or had none to wait in.
        leased: when its adapter was in the engine's memory.
        first, last: when the engine gave its first and its latest token.
        engine_queued: seconds that it waited in the engine's own queue.
        prompt, cached, output: tokens of the prompt, those of them that were in the prefix cache, and of the answer.
        estimated: whether `output` is an estimate, because the request was aborted before the engine told it.
        beams: whether it is a beam search, each of whose prompts counts once.
        searches: of a beam search, the parameters and the tokens of each prompt that was charged, until it has ended.
        intervals: seconds between tokens. It is a histogram, since long answers have many thousands.
        status: of the answer; 0 before there is one.
        ending: how it ended; None while it runs.
        code: of the error that it was answered with, if it was.
        headers: more headers of the answer.
        spent: whoever wants to be told of its tokens as they come.
        complete: whether all of the answer has been sent.
        calls: what the engine still works on for it.
    """

    id: str
    client_id: str = field(default="", kw_only=True)
    method: str = ""
    path: str = ""
    access: Access = NOBODY
    model: str = ""
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    queued: float | None = None
    admitted: float | None = None
    leased: float | None = None
    first: float | None = None
    last: float | None = None
    engine_queued: float | None = None
    prompt: int = 0
    cached: int = 0
    output: int = 0
    estimated: bool = False
    beams: bool = False
    searches: list[tuple[Any, Sequence[int]]] = field(default_factory=list)
    intervals: Histogram = field(default_factory=lambda: Histogram(BETWEEN))
    status: int = 0
    ending: Ending | None = None
    code: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)
    complete: bool = False
    calls: list[Call] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def loading(self) -> float | None:
        """Seconds that its adapter took from its turn until it was in the engine's memory; None if it needed none."""
        return None if self.leased is None else self.leased - (self.admitted or self.began)

    @property
    def edge_queued(self) -> float | None:
        """Seconds that it waited at the edge; None if it did not come so far, or had nothing to wait for."""
        return None if self.admitted is None else self.admitted - (self.queued or self.began)

    def heard(self, kind: str) -> None:
        """Note what the client's side of the connection said: it leaves, perhaps before it has its answer."""
        if kind == "http.disconnect" and not self.complete:
            self.ending = "disconnected"

    def told(self, message: Mapping[str, Any]) -> None:
        """Note a part of the answer that is being sent."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)

    def note_queued(self) -> None:
        """It is complete, and waits for its turn at the edge."""
        self.queued = time.monotonic()

    def note_admitted(self) -> None:
        """It has left the queue at the edge."""
        self.admitted = time.monotonic()

    def note_leased(self) -> None:
        """Its adapter is in the engine's memory."""
        self.leased = time.monotonic()

    def count(self, prompt: int, output: int) -> None:
        """Add tokens that the engine has computed since it was last told."""
        self.prompt += prompt
        self.output += output
        for each in self.spent:
            each(prompt, output)

    def settle(self) -> None:
        """Close it, and stop whatever still computes for it."""
        for call in tuple(self.calls):
            call.settle()
        self.searches.clear()
        if self.ended is None:
            self.ended = time.monotonic()


def printable(raw: bytes) -> str:
    """What of a client's own words can stand in a log: their first letters, digits and signs of ASCII, in one word."""
    return "".join(chr(byte) for byte in raw[:LONGEST_ID] if 32 < byte < 127)


CURRENT: ContextVar[Account | None] = ContextVar("loraloom_account", default=None)
"""The account of the request in whose task this is; None outside of requests, as for the server's own probes."""
