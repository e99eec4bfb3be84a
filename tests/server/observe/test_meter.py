"""Counting what the engine computes, over generators that give what vLLM's client gives."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from loraloom.server.observe.account import CURRENT, Account
from loraloom.server.observe.meter import Pace, metered


class Kind(Enum):
    """As vLLM's `RequestOutputKind`."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


def params(kind: Kind, n: int = 1, max_tokens: int | None = 100) -> Any:
    return SimpleNamespace(output_kind=kind, n=n, max_tokens=max_tokens)


def output(*sizes: int, prompt: int | None = 5, cached: int = 0, stats: Any = None, first: int = 0) -> Any:
    """A `RequestOutput`: so many tokens of each sequence, the first of which has this index."""
    outputs = [SimpleNamespace(index=first + i, token_ids=[7] * size) for i, size in enumerate(sizes)]
    tokens = None if prompt is None else [1] * prompt
    return SimpleNamespace(outputs=outputs, prompt_token_ids=tokens, num_cached_tokens=cached, metrics=stats)


@dataclass
class Engine:
    """A client of an engine: gives outputs at their times, and knows which requests it has aborted.

    Attributes:
        clock: advances to an output's time when that is given.
        endless: after the last output it computes on, and says nothing.
        error: raised after the last output.
    """

    clock: "Clock"
    outputs: Sequence[tuple[float, Any]]
    endless: bool = False
    error: Exception | None = None
    aborted: list[str] = field(default_factory=list)
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncGenerator[Any, None]:
        try:
            for at, each in self.outputs:
                self.clock.now = at
                yield each
            if self.endless:
                self.silent.set()
                await asyncio.Event().wait()
            if self.error:
                raise self.error
        except (asyncio.CancelledError, GeneratorExit):
            await asyncio.sleep(0)
            self.aborted.append(request_id)
            raise


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(100.0)
    monkeypatch.setattr("loraloom.server.observe.meter.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def account(clock: Clock) -> Iterator[Account]:
    account = Account("r1")
    token = CURRENT.set(account)
    yield account
    CURRENT.reset(token)


async def drain(outputs: AsyncGenerator[Any, None]) -> int:
    return len([each async for each in outputs])


async def test_deltas_add_up_and_their_intervals_are_those_between_tokens(clock: Clock, account: Account) -> None:
    stats = SimpleNamespace(queued_ts=3.0, scheduled_ts=3.5)
    engine = Engine(
        clock, [(101, output(1, cached=4, stats=stats)), (101.1, output(1)), (101.4, output(3)), (102, output(0))]
    )
    told: list[tuple[int, int]] = []
    account.spent.append(lambda prompt, new: told.append((prompt, new)))
    assert await drain(metered(engine.generate)("text", params(Kind.DELTA), "r1")) == 4
    assert (account.prompt, account.cached, account.output, account.estimated) == (5, 4, 5, False)
    assert told == [(5, 1), (0, 1), (0, 3), (0, 0)]
    assert (account.first, account.last, account.engine_queued) == (101, 101.4, 0.5)
    assert account.intervals.count == 4
    assert account.intervals.total == pytest.approx(0.4)
    assert (account.calls, engine.aborted) == ([], [])


async def test_cumulative_outputs_count_what_is_new_in_them(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [(101, output(1)), (102, output(2)), (103, output(6))])
    await drain(metered(engine.generate)("text", params(Kind.CUMULATIVE), "r1"))
    assert (account.prompt, account.output) == (5, 6)
    assert account.intervals.count == 5


@pytest.mark.parametrize(("kind", "third"), [(Kind.DELTA, 2), (Kind.CUMULATIVE, 3)])
async def test_sequences_of_one_prompt_are_told_apart(clock: Clock, account: Account, kind: Kind, third: int) -> None:
    """As vLLM gives them with `n`: an output has some of the sequences, and the prompt is counted once."""
    outputs = [(101, output(1, cached=3)), (101.5, output(1, first=1, cached=3)), (102, output(third))]
    await drain(metered(Engine(clock, outputs).generate)("text", params(kind, n=2), "r1"))
    assert (account.prompt, account.cached, account.output) == (5, 3, 4)
    assert (account.intervals.count, account.intervals.total) == (2, pytest.approx(1.0))


async def test_an_answer_given_as_a_whole_has_its_times_from_the_engine(clock: Clock, account: Account) -> None:
    stats = SimpleNamespace(
        queued_ts=100.0, scheduled_ts=100.2, first_token_ts=101.0, last_token_ts=103.0, num_generation_tokens=5
    )
    engine = Engine(clock, [(104, output(5, 3, stats=stats))])
    await drain(metered(engine.generate)("text", params(Kind.FINAL_ONLY, n=2), "r1"))
    assert (account.prompt, account.output, account.first) == (5, 8, 101.0)
    assert account.intervals.count == 4
    assert account.intervals.total == pytest.approx(2.0)


async def test_without_the_engines_statistics_a_whole_answer_has_no_first_token(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [(104, output(5))])
    await drain(metered(engine.generate)("text", params(Kind.FINAL_ONLY), "r1"))
    assert (account.output, account.first, account.intervals.count) == (5, None, 0)


async def test_every_prompt_of_a_request_counts(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [(101, output(2))])
    generate = metered(engine.generate)
    for number in range(3):
        await drain(generate("text", params(Kind.DELTA), f"r1-{number}"))
    assert (account.prompt, account.output) == (15, 6)


@dataclass
class Beams:
    """Searches as vLLM's server makes them: each step is a call for every beam, with all that came before.

    Attributes:
        generate: what the calls are made to.
    """

    generate: Any

    async def search(self, prompt: Sequence[int], steps: int = 3, width: int = 2) -> None:
        """Search to the end, or until it is cancelled."""
        shared, beams = params(Kind.CUMULATIVE, max_tokens=1), [list(prompt)]
        for _ in range(steps):
            await asyncio.gather(
                *(drain(self.generate({"prompt_token_ids": beam}, shared, "r1-beam")) for beam in beams)
            )
            beams = [[*beams[0], 100 + number] for number in range(width)]


class Prefixes:
    """An engine that has all but the last token of every prompt in its prefix cache, and stops to answer some time.

    Attributes:
        most: calls that it answers.
        stuck: those that it has not answered.
    """

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.stuck = 0

    async def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncGenerator[Any, None]:
        size = len(prompt["prompt_token_ids"])
        if not self.most:
            self.stuck += 1
            await asyncio.Event().wait()
        self.most -= 1
        yield output(1, prompt=None, cached=size - 1)


async def test_each_prompt_of_a_beam_search_counts_once_and_so_does_what_of_it_was_cached(
    clock: Clock, account: Account
) -> None:
    """Two of the three prompts are the same, and the third goes on from them."""
    account.beams = True
    beams = Beams(metered(Prefixes().generate))
    await asyncio.gather(*(beams.search(prompt) for prompt in ([1] * 10, [1] * 10, [1] * 30)))
    assert (account.prompt, account.cached) == (50, 47)
    assert account.output == 3 * (1 + 2 + 2)


async def test_prompts_of_one_search_that_do_not_go_on_from_each_other_count_each(
    clock: Clock, account: Account
) -> None:
    """Where a handler makes no beams, and gives all its calls one object of parameters."""
    account.beams = True
    generate, shared = metered(Prefixes().generate), params(Kind.CUMULATIVE)
    for token in (1, 2):
        await drain(generate({"prompt_token_ids": [token] * 10}, shared, "r1"))
    assert (account.prompt, account.cached) == (20, 18)


@pytest.mark.parametrize(("answered", "opened"), [(0, 2), (2, 4), (6, 4)])
async def test_a_client_that_leaves_a_beam_search_pays_for_each_prompt_once(
    clock: Clock, account: Account, answered: int, opened: int
) -> None:
    account.beams = True
    engine = Prefixes(answered)
    beams = Beams(metered(engine.generate))
    tasks = [asyncio.ensure_future(beams.search([token] * 10)) for token in (1, 2)]
    while engine.stuck < opened:
        await asyncio.sleep(0)
    account.settle()
    assert (account.prompt, account.output, account.estimated) == (20, answered, True)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (account.prompt, account.output) == (20, answered)


async def test_a_stream_that_is_cancelled_is_aborted_and_what_was_seen_is_exact(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [(101, output(1)), (102, output(1))], endless=True)
    task = asyncio.ensure_future(drain(metered(engine.generate)("text", params(Kind.DELTA), "r1")))
    await engine.silent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.aborted == ["r1"]
    assert (account.prompt, account.output, account.estimated, account.calls) == (5, 2, False, [])


async def test_a_stream_that_is_closed_is_aborted_before_closing_returns(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [(101, output(1)), (102, output(1))])
    outputs = metered(engine.generate)("text", params(Kind.DELTA), "r1")
    await anext(outputs)
    await outputs.aclose()
    assert engine.aborted == ["r1"]
    assert account.output == 1


async def test_a_stream_that_is_dropped_is_aborted(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [(101, output(1)), (102, output(1))])
    outputs = metered(engine.generate)("text", params(Kind.DELTA), "r1")
    await anext(outputs)
    del outputs
    for _ in range(5):
        await asyncio.sleep(0)
    assert engine.aborted == ["r1"]
    assert account.calls == []


@pytest.mark.parametrize(
    ("seconds", "n", "most", "tokens"),
    [(0.5, 1, 100, 0), (1.5, 1, 100, 6), (1.5, 3, 100, 18), (60, 1, 100, 100), (60, 2, None, 1182)],
)
async def test_what_an_aborted_answer_has_cost_is_estimated_from_those_before(
    clock: Clock, account: Account, seconds: float, n: int, most: int | None, tokens: int
) -> None:
    """Others had their first token after a second and one more every 0.1 s."""
    pace = Pace()
    engine = Engine(clock, [(101 + i / 10, output(1)) for i in range(11)])
    await drain(metered(engine.generate, pace)("text", params(Kind.DELTA), "r0"))
    assert (pace.first, round(pace.each, 9)) == (1.0, 0.1)
    account.prompt = account.output = 0
    silent = Engine(clock, [], endless=True)
    prompt = {"prompt_token_ids": [1] * 9}
    clock.now = 200.0
    task = asyncio.ensure_future(drain(metered(silent.generate, pace)(prompt, params(Kind.FINAL_ONLY, n, most), "r1")))
    await silent.silent.wait()
    clock.now += seconds + 1e-6
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert silent.aborted == ["r1"]
    assert (account.prompt, account.output, account.estimated) == (9, tokens, True)


async def test_an_account_that_is_closed_first_has_the_estimate_and_changes_no_more(
    clock: Clock, account: Account
) -> None:
    """vLLM's server answers a client that has left without waiting for the call that it cancels."""
    pace = Pace(first=1.0, each=0.5)
    engine = Engine(clock, [(100.0, output(0))], endless=True)
    silent = Engine(clock, [], endless=True)
    tasks = [
        asyncio.ensure_future(drain(metered(each.generate, pace)({"prompt_token_ids": [1] * 9}, params(kind), "r")))
        for each, kind in ((engine, Kind.DELTA), (silent, Kind.FINAL_ONLY))
    ]
    await engine.silent.wait()
    await silent.silent.wait()
    clock.now = 103.0
    account.settle()
    assert (account.prompt, account.output, account.calls) == (5 + 9, 5, [])
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (account.prompt, account.output) == (5 + 9, 5)
    assert len(engine.aborted + silent.aborted) == 2


async def test_what_nobody_reads_or_ends_is_aborted_when_the_account_is_closed(clock: Clock, account: Account) -> None:
    """As when the sending of an answer fails: its generators stay where they are until they are collected."""
    aborted: list[str] = []

    async def abort(request_id: str) -> None:
        aborted.append(request_id)

    engine = Engine(clock, [(101, output(1)), (102, output(1))])
    generate = metered(engine.generate, abort=abort)
    ended, unread = (generate("text", params(Kind.DELTA), name) for name in ("r1", "r2"))
    await drain(ended)
    await anext(unread)
    account.settle()
    account.settle()
    await asyncio.sleep(0)
    assert (aborted, account.output, account.calls) == (["r2"], 3, [])
    await unread.aclose()
    await asyncio.sleep(0)
    assert aborted == ["r2"]


async def test_an_engine_that_fails_is_not_paid_for_what_it_did_not_tell(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [], error=ConnectionError("the engine is dead"))
    with pytest.raises(ConnectionError):
        await drain(metered(engine.generate)({"prompt_token_ids": [1]}, params(Kind.FINAL_ONLY), "r1"))
    assert (account.prompt, account.output, account.estimated, account.calls) == (0, 0, False, [])


async def test_what_was_never_started_costs_nothing(clock: Clock, account: Account) -> None:
    outputs = metered(Engine(clock, [(101, output(1))]).generate)("text", params(Kind.DELTA), "r1")
    await outputs.aclose()
    account.settle()
    assert (account.prompt, account.output) == (0, 0)


async def test_outside_of_requests_the_generator_is_the_engines_own() -> None:
    own: Any = object()
    assert metered(lambda *_: own)("text", None, "probe") is own


async def test_the_account_is_that_of_the_caller_wherever_the_outputs_are_read(clock: Clock, account: Account) -> None:
    engine = Engine(clock, [(101, output(1))])
    outputs = metered(engine.generate)("text", params(Kind.DELTA), "r1")
    token = CURRENT.set(None)
    await asyncio.create_task(drain(outputs))
    CURRENT.reset(token)
    assert account.output == 1


def test_running_means_follow_slowly() -> None:
    pace = Pace()
    pace.learn(1.0, None)
    assert (pace.first, pace.each) == (1.0, 0.0)
    assert pace.tokens(5.0, 100) == 1
    seen = []
    for _ in range(100):
        pace.learn(3.0, 0.5)
        seen.append(pace.first)
    assert seen[0] == pytest.approx(1.1)
    assert all(before < after for before, after in pairwise(seen))
    assert 2.9 < seen[-1] < 3.0
