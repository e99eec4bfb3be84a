"""A discrete simulation: an engine that computes a token a step for each of its seats, behind the real queue."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from loraloom.server.admission.asked import Asked
from loraloom.server.admission.counters import OUTPUT_WEIGHT, PROMPT_WEIGHT
from loraloom.server.admission.queue import Queue
from loraloom.server.admission.rules import Rules
from loraloom.server.admission.ticket import Ticket


class FakeClock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Work:
    """What a request asks for, and how many steps its answer takes."""

    asked: Asked
    output: int


@dataclass(eq=False)
class Client:
    """Sends its next request in the step in which it has the answer to the last one."""

    works: Iterator[Work]
    waits: list[float] = field(default_factory=list)
    ticket: Ticket | None = None
    work: Work | None = None
    computed: int = 0


def waited(ticket: Ticket) -> float:
    """Seconds that a request waited before it was let in."""
    return 0.0 if ticket.released is None else ticket.released - ticket.since


def free(queue: Queue) -> int:
    """Seats that nobody has."""
    return queue._seats.free


def adapters(queue: Queue) -> list[str]:
    """The adapters whose requests run."""
    return list(queue._places._places)


class Engine:
    """Some seats, and clients that want them.

    Attributes:
        served: what each key has been served, in the paper's weights.
        log: what had been served after each step.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.clock = FakeClock()
        self.queue = Queue(rules, self.clock)
        self.clients: list[Client] = []
        self.served: Counter[str] = Counter()
        self.log: list[Counter[str]] = []

    def add(self, works: Iterator[Work]) -> Client:
        """One more client, which begins in the next step."""
        client = Client(works)
        self.clients.append(client)
        return client

    def run(self, steps: int, check: Callable[["Engine"], None] = lambda engine: None) -> None:
        """Compute so many steps, of a second each."""
        for _ in range(steps):
            for client in self.clients:
                self._send(client)
            self.check_nothing_is_given_out_twice()
            check(self)
            self.clock.now += 1
            for client in self.clients:
                self._compute(client)
            self.log.append(self.served.copy())

    def running(self) -> list[Ticket]:
        """The tickets of the requests that run."""
        return [each.ticket for each in self.clients if each.ticket and each.ticket.released is not None]

    def waiting(self) -> list[Ticket]:
        """The tickets of the requests that wait."""
        return [each.ticket for each in self.clients if each.ticket and each.ticket.released is None]

    def check_nothing_is_given_out_twice(self) -> None:
        """The engine has no more to do at a time than it can, and the queue knows what it does."""
        running = self.running()
        taken = sum(ticket.seats for ticket in running)
        assert taken <= self.rules.seats
        assert free(self.queue) == self.rules.seats - taken
        needed = {ticket.adapter for ticket in running} - {None}
        assert len(needed) <= self.rules.adapters
        assert set(adapters(self.queue)) == needed
        assert self.queue.running() == Counter(ticket.asked.key for ticket in running)
        assert self.queue.waiting() == Counter(ticket.asked.key for ticket in self.waiting())

    def _send(self, client: Client) -> None:
        if client.ticket is None and (work := next(client.works, None)) is not None:
            client.work, client.computed = work, 0
            client.ticket = self.queue.ask(work.asked)

    def _compute(self, client: Client) -> None:
        ticket, work = client.ticket, client.work
        if ticket is None or work is None or ticket.released is None or ticket.released == self.clock.now:
            return
        prompt = work.asked.work.prompt if client.computed == 0 else 0
        ticket.spend(prompt, ticket.seats)
        self.served[work.asked.key] += PROMPT_WEIGHT * prompt + OUTPUT_WEIGHT * ticket.seats
        client.computed += 1
        if client.computed == work.output:
            client.waits.append(waited(ticket))
            client.ticket = None
            self.queue.leave(ticket)
