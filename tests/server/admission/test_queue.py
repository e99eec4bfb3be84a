"""The queue, rule by rule and under load that is simulated."""

import itertools
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.server.admission.asked import Asked
from loraloom.server.admission.counters import OUTPUT_WEIGHT, PROMPT_WEIGHT
from loraloom.server.admission.estimate import Estimate
from loraloom.server.admission.queue import Queue
from loraloom.server.admission.rules import Rules, usual_reserve
from loraloom.server.admission.ticket import Ticket
from loraloom.server.errors import Draining, QueueFull
from tests.server.admission.simulated import Engine, FakeClock, Work, adapters, free, waited


def asked(key: str, adapter: str | None = None, sequences: int = 1, background: bool = False) -> Asked:
    return Asked(key, adapter, Estimate(sequences, 10, 0), background)


class Asking:
    """A queue and the tickets that it gave, by the order in which they were asked for."""

    def __init__(self, rules: Rules) -> None:
        self.clock = FakeClock()
        self.queue = Queue(rules, self.clock)
        self.tickets: list[Ticket] = []

    def ask(self, key: str, adapter: str | None = None, sequences: int = 1, background: bool = False) -> Ticket:
        self.tickets.append(self.queue.ask(asked(key, adapter, sequences, background)))
        return self.tickets[-1]

    def end(self, *tickets: Ticket) -> None:
        for ticket in tickets:
            self.queue.leave(ticket)

    def admitted(self) -> list[int]:
        return [number for number, ticket in enumerate(self.tickets) if ticket.released is not None]


def test_a_request_comes_in_at_once_where_there_is_room() -> None:
    asking = Asking(Rules(2, 1))
    ticket = asking.ask("a", "x@1")
    assert waited(ticket) == 0
    assert (asking.queue.running(), asking.queue.waiting(), adapters(asking.queue)) == ({"a": 1}, {}, ["x@1"])
    asking.end(ticket)
    assert (asking.queue.running(), free(asking.queue), adapters(asking.queue)) == ({}, 2, [])


def test_others_wait_for_a_seat_and_the_oldest_of_a_key_is_first() -> None:
    asking = Asking(Rules(1, 1))
    first, second, third = (asking.ask("a") for _ in range(3))
    assert asking.queue.waiting() == {"a": 2}
    asking.clock.now += 3
    asking.end(first)
    assert asking.admitted() == [0, 1]
    assert (waited(second), waited(third)) == (3, 0)


def test_the_key_that_was_served_least_is_next() -> None:
    asking = Asking(Rules(1, 1))
    first = asking.ask("a")
    waiting = {key: asking.ask(key) for key in ("a", "b", "c")}
    first.spend(10, 100)
    asking.end(first)
    assert waiting["b"].released is not None
    waiting["b"].spend(10, 1)
    asking.end(waiting["b"])
    assert waiting["c"].released is not None


def test_a_request_whose_adapter_has_no_room_is_overtaken_and_then_room_is_made() -> None:
    asking = Asking(Rules(2, 1, hold=5))
    running = asking.ask("a", "hot")
    cold = asking.ask("a", "cold")
    assert asking.ask("a", "hot").released is not None
    asking.clock.now += 5
    waiting = asking.ask("a", "hot")
    asking.end(running)
    assert (waiting.released, cold.released) == (None, None)  # hot drains
    asking.end(asking.tickets[2])
    assert cold.released is not None
    assert waiting.released is None


def test_a_large_request_gathers_its_seats_and_nobody_takes_them() -> None:
    asking = Asking(Rules(4, 1))
    running = [asking.ask("a") for _ in range(4)]
    large = asking.ask("b", sequences=3)
    small = asking.ask("c")
    running[0].spend(0, 100)
    asking.end(*running[:2])
    assert (large.released, small.released) == (None, None)
    asking.end(running[2])
    assert large.released is not None
    assert small.released is None
    assert free(asking.queue) == 0


def test_no_later_request_of_its_key_overtakes_a_large_one() -> None:
    asking = Asking(Rules(4, 2, reserve=2))
    running = asking.ask("a", "x")
    asking.ask("b")
    large = asking.ask("a", sequences=2)
    small = asking.ask("a", "x")
    assert free(asking.queue) == 2
    assert (large.released, small.released) == (None, None)  # though the small one alone could come in
    asking.end(running)
    assert large.released is not None


def test_a_request_that_computes_nothing_costs_its_key_nothing() -> None:
    asking = Asking(Rules(1, 1))
    other, failing = asking.ask("b"), asking.ask("a")
    waiting = asking.ask("a")
    other.spend(10, 0)
    more = asking.ask("b")
    asking.end(other)
    assert failing.released is not None
    asking.end(failing)
    assert waiting.released is not None
    assert more.released is None


def test_a_request_that_is_larger_than_the_engine_takes_what_one_key_can_have() -> None:
    asking = Asking(Rules(8, 1, reserve=2))
    large = asking.ask("a", sequences=100)
    assert (large.seats, free(asking.queue)) == (6, 2)
    assert asking.ask("a").released is None
    assert asking.ask("b").released is not None


def test_jobs_come_in_only_when_nobody_else_waits() -> None:
    asking = Asking(Rules(2, 1, reserve=1))
    job = asking.ask("a", background=True)
    more = asking.ask("a", background=True)
    assert job.released is not None
    assert more.released is None  # the reserve is not for jobs
    other = asking.ask("a")
    waiting = asking.ask("a")
    assert other.released is not None
    asking.end(job)
    assert waiting.released is None
    assert more.released is None
    asking.end(other)
    assert waiting.released is not None
    asking.end(waiting)
    assert more.released is not None
    assert asking.queue.running() == {"a": 1}


def test_jobs_do_not_come_in_past_a_request_that_waits_for_its_adapter() -> None:
    asking = Asking(Rules(4, 1))
    running, cold = asking.ask("a", "x"), asking.ask("a", "y")
    job = asking.ask("b", background=True)
    assert (cold.released, job.released) == (None, None)
    asking.end(running)
    assert cold.released is not None
    assert job.released is not None


def test_what_a_key_uses_for_jobs_does_not_put_its_own_requests_back() -> None:
    asking = Asking(Rules(1, 1))
    job = asking.ask("a", background=True)
    mine, other = asking.ask("a"), asking.ask("b")
    job.spend(10, 1000)
    asking.end(job)
    assert mine.released is not None
    assert other.released is None


def test_a_request_that_leaves_the_line_leaves_no_trace() -> None:
    asking = Asking(Rules(4, 1))
    running = asking.ask("a", sequences=2)
    large = asking.ask("a", "x@1", sequences=4)
    small = asking.ask("a")
    assert small.released is None
    asking.end(large)
    assert small.released is not None
    asking.end(running, small)
    assert (free(asking.queue), asking.queue.waiting(), asking.queue.running()) == (4, {}, {})


def test_so_many_may_wait_and_no_more() -> None:
    asking = Asking(Rules(1, 1, most_waiting=3, most_of_a_key=2))
    for key in "aaab":
        asking.ask(key)
    with pytest.raises(QueueFull, match="2 requests of key 'a'"):
        asking.ask("a")
    with pytest.raises(QueueFull, match="3 requests wait"):
        asking.ask("c")
    asking.ask("c", background=True)  # jobs have a line of their own
    assert asking.queue.waiting() == {"a": 2, "b": 1}
    assert asking.queue.waiting_behind() == {"c": 1}


async def test_closing_turns_away_all_that_wait_and_lets_the_others_end() -> None:
    asking = Asking(Rules(1, 1))
    running, waiting, job = asking.ask("a"), asking.ask("a"), asking.ask("b", background=True)
    turns = [waiting.turn(), job.turn()]
    asking.queue.close()
    assert [turn.result() for turn in turns] == [False, False]
    with pytest.raises(Draining):
        asking.ask("a")
    asking.end(waiting, job, running)
    assert (free(asking.queue), asking.queue.waiting()) == (1, {})


def endless(
    key: str, adapters: Sequence[str | None] = (None,), prompt: int = 20, output: int = 10, sequences: int = 1
) -> Iterator[Work]:
    """Requests of one kind, for each adapter in turn."""
    return (Work(Asked(key, adapter, Estimate(sequences, prompt, 0)), output) for adapter in itertools.cycle(adapters))


def varied(key: str, adapters: Sequence[str | None], seed: int, most: int, sequences: int = 1) -> Iterator[Work]:
    """Requests of all sizes."""
    chance = random.Random(seed)
    while True:
        work = Estimate(chance.choice((1, 1, sequences)), chance.randrange(1, 20), 0)
        yield Work(Asked(key, chance.choice(adapters), work), chance.randrange(1, most + 1))


def test_whatever_one_key_floods_the_server_with_another_that_sends_one_at_a_time_hardly_waits() -> None:
    engine = Engine(Rules(16, 8, usual_reserve(16)))
    names = [f"flood{number}" for number in range(40)]
    flood = [engine.add(endless("flood", names[number % 40 :] + names[: number % 40])) for number in range(64)]
    light = engine.add(endless("light", ["mine"]))
    engine.run(400)
    assert max(light.waits) <= 1
    assert len(light.waits) >= 400 // 11
    assert sum(len(client.waits) for client in flood) > 400


@pytest.mark.parametrize("reserve", [0, 2])
def test_two_keys_that_always_wait_are_served_the_same_but_for_the_papers_bound(reserve: int) -> None:
    seats, longest_prompt, longest = 16, 100, 150
    engine = Engine(Rules(seats, 4, reserve))
    for _ in range(30):
        engine.add(endless("long", prompt=longest_prompt, output=50))
        engine.add(endless("short", prompt=5, output=3))
    engine.run(600)
    bound = 2 * max(PROMPT_WEIGHT * longest_prompt, OUTPUT_WEIGHT * seats * longest)
    assert all(abs(served["long"] - served["short"]) <= bound for served in engine.log)
    assert min(engine.served.values()) > bound  # else it would hold for anybody


def test_one_key_gets_no_more_by_sending_more() -> None:
    engine = Engine(Rules(8, 4))
    for number in range(44):
        engine.add(varied("many" if number < 32 else "few", [None], number, 12))
    engine.run(800)
    assert engine.served["many"] == pytest.approx(engine.served["few"], rel=0.05)


def test_no_seat_is_idle_while_a_request_that_may_take_it_waits() -> None:
    def nothing_could_come_in(engine: Engine) -> None:
        out = set(adapters(engine.queue))
        if free(engine.queue):
            assert len(out) == 3
            assert not {ticket.adapter for ticket in engine.waiting()} & {None, *out}

    engine = Engine(Rules(8, 3, hold=1e9))
    for number in range(24):
        engine.add(varied(f"key{number % 3}", [None, "a", "b", "c", "d", "e"], number, 9))
    engine.run(300, nothing_could_come_in)


def test_a_cold_adapter_does_not_wait_for_hot_ones_for_ever() -> None:
    """Its own turn in the key's line apart, it waits for `hold` and for the longest request that runs then."""
    hold, longest = 5, 12
    engine = Engine(Rules(8, 3, hold=hold))
    for number in range(9):
        engine.add(varied("key", [f"hot{number % 3}"], number, longest))
    engine.run(100)
    cold = engine.add(varied("key", ["cold"], 99, longest))
    engine.run(600)
    assert len(cold.waits) > 20
    assert max(cold.waits) <= longest + hold + longest


@given(
    seed=st.integers(0, 2**32),
    seats=st.integers(1, 8),
    places=st.integers(1, 4),
    share=st.floats(0, 0.99),
    hold=st.sampled_from([0, 1, 3, 10]),
    keys=st.integers(1, 4),
    clients=st.integers(1, 14),
)
@settings(max_examples=60, deadline=None)
def test_no_schedule_leaves_a_request_waiting_or_a_seat_taken(
    seed: int, seats: int, places: int, share: float, hold: int, keys: int, clients: int
) -> None:
    chance, longest = random.Random(seed), 5
    engine = Engine(Rules(seats, places, int(share * seats), hold=hold))
    names = [None, *(f"adapter{number}" for number in range(chance.randrange(6)))]
    for number in range(clients):
        mine = chance.sample(names, chance.randrange(1, len(names) + 1))
        engine.add(varied(f"key{number % keys}", mine, seed + number, longest, sequences=chance.randrange(1, 12)))

    def some_leave_and_nobody_waits_for_ever(engine: Engine) -> None:
        for client in engine.clients:
            if client.ticket is not None and chance.random() < 0.02:
                engine.queue.leave(client.ticket)
                client.ticket = None
        oldest = min((ticket.since for ticket in engine.waiting()), default=engine.clock.now)
        assert engine.clock.now - oldest <= 10 * clients * (longest + hold)

    engine.run(120, some_leave_and_nobody_waits_for_ever)
    for client in engine.clients:
        client.works = iter(())
    engine.run(clients * (longest + hold + 2) + hold)
    assert (engine.waiting(), engine.running()) == ([], [])
    assert (free(engine.queue), adapters(engine.queue), engine.queue.running()) == (seats, [], {})
