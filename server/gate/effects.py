"""What an adapter does to the model, measured when it is published: one can be sound and match nothing."""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import asdict, dataclass
from typing import Protocol

from loraloom.adapters.names import Adapter, Selection
from loraloom.adapters.store.records import VersionRecord
from loraloom.server.gate.exchange import Choice
from loraloom.server.gate.leases import Leases

log = logging.getLogger("vllm.loraloom.effects")

PROMPT = (
    "The ship left the harbour on 3 May 1998 with forty people on board. Question: Which table holds the orders of a "
    "customer? Answer: SELECT name, price FROM orders WHERE customer = 7; It costs 12.50 dollars, which is more than "
    "she wanted to pay."
)
"""What every adapter is measured on: some prose, a date, a question, a line of code and numbers."""
FACT = "effect"
"""The kind of fact that is recorded."""
NEGLIGIBLE = 1e-3
"""Nats: a change of a log-probability up to this size is what rounding in another batch makes, too."""


class Scoring(Protocol):
    """An engine that tells how likely a prompt is."""

    async def prompt_logprobs(self, name: str | None, prompt: str) -> Sequence[float]:
        """The log-probability of each token of a prompt after its first, in nats.

        Args:
            name: an adapter that the engine holds; None is the plain base model.
            prompt: the text.
        """


class Facts(Protocol):
    """Where facts are kept; may block."""

    def note_fact(self, digest: str, kind: str, value: Mapping[str, object]) -> bool:
        """Record a fact once; False where there is one."""


@dataclass(frozen=True)
class Effect:
    """How an adapter changes the log-probabilities of a prompt's tokens.

    Attributes:
        max_logprob_change: the largest change of any token's, in nats.
        mean_logprob_change: the mean of the changes' sizes, in nats.
        tokens: how many were compared.
        prompt: the text.
    """

    max_logprob_change: float
    mean_logprob_change: float
    tokens: int
    prompt: str

    @classmethod
    def between(cls, base: Sequence[float], adapted: Sequence[float], prompt: str) -> "Effect":
        """The effect of an adapter, from each token's log-probability without and with it."""
        changes = [abs(one - other) for one, other in zip(base, adapted, strict=True)]
        return cls(max(changes), math.fsum(changes) / len(changes), len(changes), prompt)


class Effects:
    """Measures published versions in the background, one at a time, and writes down what came out."""

    def __init__(self, engine: Scoring, leases: Leases, facts: Facts, settle: Callable[[Selection], Choice]) -> None:
        """
        Args:
            engine: computes it.
            leases: keep the adapter in memory meanwhile.
            facts: where the outcome goes.
            settle: what a selection stands for; raises where the server cannot serve it, or not any more; may block.
        """
        self._engine = engine
        self._leases = leases
        self._facts = facts
        self._settle = settle
        self._turn = asyncio.Lock()
        self._base: Sequence[float] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def measure(self, record: VersionRecord) -> None:
        """Measure a version soon; what goes wrong is logged."""
        # In a context of its own, so that what it computes is not counted as the publishing request's.
        task = asyncio.get_running_loop().create_task(self._measure(record), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Return when nothing is left to measure."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _measure(self, record: VersionRecord) -> None:
        try:
            async with self._turn:
                effect = await self._effect(record)
            await asyncio.to_thread(self._facts.note_fact, record.digest, FACT, asdict(effect))
        except Exception as error:  # nobody waits for it, and serving does not need it
            log.warning("the effect of %s could not be measured: %s", record.canonical, error)
            return
        if not effect.max_logprob_change > NEGLIGIBLE:  # so that NaN is told too
            log.warning(
                "%s changes no log-probability of a probe prompt by more than %g nats: does it do anything?",
                record.canonical,
                NEGLIGIBLE,
            )

    async def _effect(self, record: VersionRecord) -> Effect:
        """Raises for a version that cannot be served."""
        choice = await asyncio.to_thread(self._settle, Selection(Adapter(record.name, record.number)))
        assert choice.content is not None, "a version is no base model"
        async with self._leases.hold(choice.model, choice.content):
            base = self._base = self._base or await self._engine.prompt_logprobs(None, PROMPT)
            return Effect.between(base, await self._engine.prompt_logprobs(choice.model, PROMPT), PROMPT)
