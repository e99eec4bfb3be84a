"""What the gate costs: processor time per request that it adds to an application that only answers.

No sockets: requests are handed to the gate as the HTTP server hands them over, on the event loop that the engine's
server uses. The processor time is that of the whole process, threads included. Both sizes of the store and the bare
application take turns, so that what slows the machine for a while slows all of them.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeAlias

import uvloop
from starlette.applications import Starlette

from loraloom.adapters.store import Store
from loraloom.server.base import ServedBase
from loraloom.server.gate.assembly import EngineLimits, assemble
from loraloom.server.gate.exchange import ASGIApp
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.middleware import GateMiddleware
from loraloom.server.observe.observer import Observer
from loraloom.server.settings import Settings
from tests.bench.asgi import Request, stub
from tests.bench.edge_store import BASE, TAG, filled, names, used_names
from tests.bench.errors import InvalidRun
from tests.bench.estimate import Estimate, paired_difference
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.registry import Benchmark

SIZES = (10, 10_000)
"""Names in the store."""
RUNS = 15
LIMIT = 300.0
"""Microseconds of processor time that the gate may add to a request."""
MANY = 200
"""Names that do not fit into the engine's memory together."""
BARE = "bare"
"""The application without a gate."""
BASE_NAME = "base"

Models: TypeAlias = Callable[[Store, int], list[str]]
"""What requests ask for, one after the other, of a store with that many names."""


def _base(store: Store, size: int) -> list[str]:
    return [BASE_NAME]


def _names(store: Store, size: int) -> list[str]:
    return used_names(size)


def _tags(store: Store, size: int) -> list[str]:
    return [f"{name}@{TAG}" for name in used_names(size)]


def _numbers(store: Store, size: int) -> list[str]:
    return [f"{name}@3" for name in used_names(size)]


def _digests(store: Store, size: int) -> list[str]:
    return [f"{name}@sha256:{store.versions(name)[-1].digest[:12]}" for name in used_names(size)]


def _mixtures(store: Store, size: int) -> list[str]:
    used = used_names(size)
    return ["+".join(f"0.25*{name}" for name in [*used, *used][at : at + 4]) for at in range(len(used))]


def _unknown(store: Store, size: int) -> list[str]:
    return [f"{name}0" for name in used_names(size)]


def _many(store: Store, size: int) -> list[str]:
    return names(size)[:MANY]


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes:
        about: what it is.
        models: what it asks for.
        turns: messages in its body.
        pieces: of the answer.
        status: the answer's.
        count: requests of it in one run.
        limited: whether `LIMIT` is for it.
    """

    about: str
    models: Models
    turns: int = 5
    pieces: int = 1
    status: int = 200
    count: int = 200
    limited: bool = True


KINDS = (
    Kind("base", _base),
    Kind("name", _names),
    Kind(f"name@{TAG}", _tags),
    Kind("name@3", _numbers),
    Kind("name@sha256:…", _digests),
    Kind("a mixture of 4", _mixtures),
    Kind("name, answer in 100 pieces", _names, pieces=100),
    Kind("unknown name: 404", _unknown, status=404, count=10),
    Kind("base, body of 100 kB", _base, turns=400, limited=False),
    Kind("name, body of 100 kB", _names, turns=400, limited=False),
    Kind(f"{MANY} names in turn", _many, count=MANY, limited=False),
)


class HoldingEngine:
    """An engine that holds what it is asked to hold, and has nothing to compute."""

    dead = False
    max_model_len = 2048

    def __init__(self) -> None:
        self.held: set[str] = set()

    async def load(self, name: str, folder: Path) -> None:
        self.held.add(name)

    async def unload(self, name: str) -> None:
        self.held.discard(name)

    async def prompt_logprobs(self, name: str | None, prompt: str) -> list[float]:
        raise NotImplementedError("it publishes nothing")


@dataclass(frozen=True)
class Trial:
    """Requests of one kind, and what answers them.

    Attributes:
        about: `BARE`, or the number of names in the gate's store.
        status: that all answers must have.
    """

    about: str
    app: ASGIApp
    requests: Sequence[Request]
    status: int

    async def run(self) -> float:
        """Make all requests, one after the other.

        Returns:
            Microseconds of processor time per request.

        Raises:
            InvalidRun: an answer has another status.
        """
        gc.collect()
        began = time.process_time()
        statuses = {await request.answered_by(self.app) for request in self.requests}
        spent = time.process_time() - began
        if statuses != {self.status}:
            raise InvalidRun(f"{self.about}: the answers have the statuses {statuses}, not {self.status}")
        return 1e6 * spent / len(self.requests)


def gate(store: Store, observer: Observer | None = None) -> Gate:
    """A gate with the settings that a user gets, in front of an engine that does nothing."""
    settings = Settings.model_validate({"model": BASE_NAME, "adapters": store.url, "cache": f"{store.url}-cache"})
    engine, base = HoldingEngine(), ServedBase(BASE_NAME, BASE, store)
    limits = EngineLimits(256, settings.max_loras, settings.max_cpu_loras, rank=16)
    return assemble(settings, store, engine, base, [BASE_NAME], limits, observer)


def trials(kind: Kind, gates: Mapping[int, Gate]) -> list[Trial]:
    """The bare application, and a gate with each size of store in front of it."""
    app = stub(kind.pieces)
    gated = [
        Trial(f"{size:,} names", GateMiddleware(app), _requests(kind, shared, size), kind.status)
        for size, shared in gates.items()
    ]
    return [Trial(BARE, app, gated[0].requests, 200), *gated]


def _requests(kind: Kind, shared: Gate, size: int) -> list[Request]:
    app = Starlette()
    app.state.loraloom = shared
    each = [Request.chat(app, model, kind.turns) for model in kind.models(shared.store, size)]
    return list(islice(cycle(each), kind.count))


Samples: TypeAlias = dict[str, dict[str, list[float]]]
"""Microseconds per request: of each kind, of each trial, of each run."""


async def measured(gates: Mapping[int, Gate], kinds: Sequence[Kind], runs: int) -> Samples:
    """The kinds, in as many runs; the first of each, which fills caches, is thrown away."""
    samples: Samples = {}
    gc.collect()
    gc.freeze()  # as vLLM's server does when it has started
    for kind in kinds:
        each = trials(kind, gates)
        of_kind = samples[kind.about] = {trial.about: [] for trial in each}
        for run in range(runs + 1):
            for trial in each[run % len(each) :] + each[: run % len(each)]:
                spent = await trial.run()
                if run:
                    of_kind[trial.about].append(spent)
    gc.unfreeze()
    return samples


def run(folder: Path, full: bool) -> Outcome:
    """Fill the stores, measure, and compare; there is one form."""
    gates = {size: gate(filled(folder / "stores" / str(size), size)) for size in SIZES}
    samples = uvloop.run(measured(gates, KINDS, RUNS))
    added = {
        kind: {size: paired_difference(times, of_kind[BARE]) for size, times in of_kind.items() if size != BARE}
        for kind, of_kind in samples.items()
    }
    return Outcome(
        runs=RUNS,
        parameters={"names": SIZES, "requests_per_run": {kind.about: kind.count for kind in KINDS}, "unit": "us"},
        results={kind: {size: asdict(estimate) for size, estimate in sizes.items()} for kind, sizes in added.items()},
        samples=samples,
        table=_table(added),
        notes=(
            f"µs of processor time that the gate adds to a request: median of {RUNS} runs [95% interval]",
            f"{MANY} names in turn: of 10 names all are held; of more, each request lets its adapter be loaded anew",
        ),
        goals=tuple(goals(added)),
    )


def _table(added: Mapping[str, Mapping[str, Estimate]]) -> Table:
    sizes = [f"{size:,} names" for size in SIZES]
    rows = [(kind, *(_cell(estimates[size]) for size in sizes)) for kind, estimates in added.items()]
    return Table(("request", *sizes), tuple(rows))


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.0f} [{estimate.low:.0f}, {estimate.high:.0f}]"


def goals(added: Mapping[str, Mapping[str, Estimate]]) -> list[Goal]:
    """One for each size: the dearest of the kinds that have a limit."""
    limited = [kind.about for kind in KINDS if kind.limited]
    worst = {size: max(limited, key=lambda kind: added[kind][size].value) for size in added[limited[0]]}
    return [Goal(f"µs added, {size}, {kind}", LIMIT, added[kind][size].value) for size, kind in worst.items()]


BENCHMARK = Benchmark("edge_cpu", "processor time that the gate adds to a request, by names in the store", run)
