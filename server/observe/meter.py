"""Counts the tokens of every call of the engine, whichever of its server's handlers made it, as they come.

All handlers of vLLM's server call `generate(prompt, sampling_params, request_id, …)` of one client object, once for
each prompt, and read from it what they answer. What is counted here is what the engine has computed, and not what a
client asked to be told: `stream_options`, stop strings and broken connections make no difference.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from loraloom.server.observe.account import CURRENT, Account

Outputs: TypeAlias = AsyncGenerator[Any, None]
"""Of vLLM's `RequestOutput`, as one call of `generate` gives them."""
Generate: TypeAlias = Callable[..., Outputs]
Abort: TypeAlias = Callable[[str], Coroutine[Any, Any, None]]
"""vLLM's, by the identifier that `generate` was called with."""

WEIGHT = 0.05
"""How much one call counts in the running means, against all before it."""


@dataclass(slots=True)
class Pace:
    """How fast the engine has been lately, as running means in seconds.

    Attributes:
        first: from a call to its first token, the queue included.
        each: from one token of a sequence to its next.
    """

    first: float = 0.0
    each: float = 0.0

    def learn(self, first: float, each: float | None) -> None:
        """Take in one call that has ended."""
        self.first += (first - self.first) * (WEIGHT if self.first else 1.0)
        if each is not None:
            self.each += (each - self.each) * (WEIGHT if self.each else 1.0)

    def tokens(self, seconds: float, most: int) -> int:
        """How many tokens a sequence probably has so many seconds after the call."""
        if seconds <= self.first or not self.first:
            return 0
        return min(most, 1 + int((seconds - self.first) / self.each)) if self.each else 1


def metered(generate: Generate, pace: Pace | None = None, abort: Abort | None = None) -> Generate:
    """A `generate` that charges what it computes to the account of the request that calls it.

    Args:
        generate: vLLM's.
        pace: what estimates are made from; by default one of its own.
        abort: vLLM's; called for what still computes when the account is closed. Where the sending of an answer fails,
            nobody ends the generators that it comes from: they, and the engine with them, go on until Python's garbage
            collector finds them.
    """
    known = pace or Pace()
    stopping: set[asyncio.Task[None]] = set()

    def stop(request_id: str) -> None:
        if abort is not None:
            stopping.add(task := asyncio.ensure_future(abort(request_id)))
            task.add_done_callback(stopping.discard)

    def counted(prompt: Any, sampling_params: Any, request_id: str, *more: Any, **named: Any) -> Outputs:
        outputs = generate(prompt, sampling_params, request_id, *more, **named)
        account = CURRENT.get()
        if account is None:
            return outputs
        return _through(outputs, _Call(account, prompt, sampling_params, known, lambda: stop(request_id)))

    return counted


async def _through(outputs: Outputs, call: "_Call") -> Outputs:
    """Hand on every output. Whatever ends this generator ends the engine's, which then aborts the request."""
    call.begin()
    told = call.told
    try:
        async for output in outputs:
            told(output)
            yield output
        call.learn()
    except (asyncio.CancelledError, GeneratorExit):
        call.give_up()
        raise
    finally:
        call.end()
        await outputs.aclose()


class _Call:
    """One call of the engine, as `account.Call`."""

    def __init__(self, account: Account, prompt: Any, params: Any, pace: Pace, stop: Callable[[], None]) -> None:
        self._account = account
        self._prompt = prompt
        self._params = params
        self._pace = pace
        self._stop = stop
        self._delta = params.output_kind.name == "DELTA"
        self._final = params.output_kind.name == "FINAL_ONLY"
        self._sizes: dict[int, int] = {}  # tokens so far, by the index of the sequence
        self._lasts: dict[int, float] = {}  # when its latest token came
        self._open = False
        self._began = 0.0
        self._first: float | None = None

    def begin(self) -> None:
        """The engine gets the request now."""
        self._began = time.monotonic()
        self._open = True
        self._account.calls.append(self)

    def told(self, output: Any) -> None:
        """Count one output."""
        if not self._open:  # the account has been closed
            return
        now = time.monotonic()
        prompt = 0 if self._sizes else self._start(output, now)
        new = sum(self._grown(one.index, len(one.token_ids), now) for one in output.outputs)
        if new:
            self._account.last = now
        self._account.count(prompt, new)

    def settle(self) -> None:
        """The account is closed, and nobody may have told the engine that the client is gone."""
        if self._open:
            self._stop()
        self.give_up()

    def give_up(self) -> None:
        """The client is gone, and the engine is being told: what it has not said is estimated."""
        if self._open and not self._sizes:
            tokens = _tokens(self._prompt)
            self._account.estimated = True
            self._account.count(len(tokens) if self._begins(tokens) else 0, self._guess() if self._final else 0)
        self.end()

    def end(self) -> None:
        """There is nothing more to count."""
        if self._open:
            self._open = False
            self._account.calls.remove(self)

    def learn(self) -> None:
        """It was answered to its end: the next estimate takes that in."""
        if self._first is None or not self._lasts:
            return
        steps = max(self._sizes.values()) - 1
        each = (max(self._lasts.values()) - self._first) / steps if steps else None
        self._pace.learn(self._first - self._began, each)

    def _start(self, output: Any, now: float) -> int:
        """Note what the first output tells; the tokens of its prompt, as far as they are to be charged."""
        account = self._account
        stats = output.metrics
        if stats is not None and stats.queued_ts and stats.scheduled_ts:
            account.engine_queued = max(account.engine_queued or 0.0, stats.scheduled_ts - stats.queued_ts)
        self._first = self._first_of_all(stats, now) if self._final else now
        if account.first is None:
            account.first = self._first
        tokens = _tokens(self._prompt) if output.prompt_token_ids is None else output.prompt_token_ids
        if not self._begins(tokens):
            return 0
        account.cached += output.num_cached_tokens or 0
        return len(tokens)

    def _begins(self, tokens: Sequence[int]) -> bool:
        """Whether its prompt is to be charged. Each step of a beam search is a call with all that came before.

        Those of one search share one object of parameters, so a prompt that goes on from another prompt of the same
        request is not taken for a step of it.
        """
        searches = self._account.searches
        if any(params is self._params and _goes_on(tokens, prompt) for params, prompt in searches):
            return False
        if self._account.beams:
            searches.append((self._params, tokens))
        return True

    def _first_of_all(self, stats: Any, now: float) -> float | None:
        """When the engine had the first token of an answer that it gave as a whole, if it says so."""
        if stats is None or not self._began <= stats.first_token_ts <= stats.last_token_ts <= now:
            return None
        if stats.num_generation_tokens > 1:
            steps = stats.num_generation_tokens - 1
            self._account.intervals.add((stats.last_token_ts - stats.first_token_ts) / steps, steps)
        return float(stats.first_token_ts)

    def _grown(self, index: int, size: int, now: float) -> int:
        """By how many tokens a sequence has grown; an output has what is new of it, or all of it."""
        before = self._sizes.get(index, 0)
        new = size if self._delta else size - before
        self._sizes[index] = before + new
        if new:
            if not self._final and index in self._lasts:
                self._account.intervals.add((now - self._lasts[index]) / new, new)
            self._lasts[index] = now
        return new

    def _guess(self) -> int:
        most = self._params.max_tokens or sys.maxsize
        return self._pace.tokens(time.monotonic() - self._began, most) * (self._params.n or 1)


def _tokens(prompt: Any) -> Sequence[int]:
    """A prompt as the server's handlers give it; empty where it is not in tokens yet."""
    tokens = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else getattr(prompt, "prompt_token_ids", None)
    return tokens or ()


def _goes_on(tokens: Sequence[int], prompt: Sequence[int]) -> bool:
    """Whether tokens are a prompt and more."""
    return len(tokens) > len(prompt) and list(tokens[: len(prompt)]) == list(prompt)
