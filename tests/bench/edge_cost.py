"""What the gate costs where all of it is in use, and which of its stages does.

Keys are in force, every limit is set, and requests are counted, written to the ledger, and told in the log. A request
asks for an adapter by a tag. As in `edge_cpu` there are no sockets, and what is measured is the processor time of the
whole process, threads included; the bare application and the gate with more and more of its stages take turns, and the
difference that a stage makes is what it costs, its part in what is behind it included.
"""

import gc
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import uvloop
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from loraloom.adapters.store import Store
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from loraloom.server.gate.exchange import ACCOUNT, ASGIApp, Receive, Scope, Send, Stage
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.middleware import GateMiddleware
from loraloom.server.observe import logs
from loraloom.server.observe.observer import Observer
from loraloom.server.settings import Settings
from tests.bench.asgi import Request, stub
from tests.bench.edge_cpu import BARE, Trial, gate
from tests.bench.edge_store import TAG, filled, used_names
from tests.bench.estimate import Estimate, median, paired_difference
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.registry import Benchmark

NAMES = 1_000
"""In the store."""
RUNS, COUNT = 31, 200
"""Runs, and requests in one."""
TURNS = 5
"""Messages in a request's body."""
PROMPT, TOKENS, LONG = 31, 3, 100
"""Tokens of a prompt, of an answer, and of an answer that is streamed, each token for itself."""
LIMIT = 300.0
"""Microseconds of processor time that the whole gate may add to a request."""
LEDGER, LOG = "its line in the ledger", "its line in the log"
STREAMED = f"all of it, {LONG} tokens streamed"
KEY = "team-00"
PLENTY = 10**9
TERMS = Terms(adapters=("*",), rpm=PLENTY, tpm=PLENTY, concurrency=1000)


@dataclass(frozen=True)
class Some:
    """The first stages of a gate, in place of all."""

    stages: Sequence[Stage]


def counting(app: ASGIApp, pieces: int) -> ASGIApp:
    """An application whose answer costs tokens, as the engine's meter tells them."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        account = scope.get(ACCOUNT)
        if account is not None:
            account.count(PROMPT, TOKENS if pieces == 1 else 1)
            for _ in range(pieces - 1):
                account.count(0, 1)
        await app(scope, receive, send)

    return counted


def trials(whole: Gate, key: str) -> list[Trial]:
    """The bare application, then the gate with one stage more each time, and the whole gate with a longer answer."""
    stages = list(whole.stages)
    parts = [_trial(_name(stages[:count]), Some(stages[:count]), whole.store, key) for count in range(len(stages) + 1)]
    return [
        Trial(BARE, stub(1), parts[0].requests, 200),
        *parts,
        Trial(f"{BARE}, streamed", stub(LONG), parts[0].requests, 200),
        _trial(STREAMED, whole, whole.store, key, pieces=LONG),
    ]


def _name(stages: Sequence[Stage]) -> str:
    return stages[-1].__name__.replace("_", " ") if stages else "the account"  # type: ignore[attr-defined]


def _trial(about: str, shared: object, store: Store, key: str, pieces: int = 1) -> Trial:
    app = Starlette()
    app.state.loraloom = shared
    names = used_names(len(store.names()))
    requests = [Request.chat(app, f"{name}@{TAG}", TURNS, key) for name in names]
    asked = [requests[number % len(requests)] for number in range(COUNT)]
    return Trial(about, GateMiddleware(counting(stub(pieces), pieces)), asked, 200)


Samples: TypeAlias = dict[str, list[float]]
"""Microseconds per request, of each trial, of each run."""


async def measured(each: Sequence[Trial], runs: int) -> Samples:
    """All trials, in so many runs; the first, which fills caches, is thrown away."""
    samples: Samples = {trial.about: [] for trial in each}
    gc.collect()
    gc.freeze()  # as vLLM's server does when it has started
    for run in range(runs + 1):
        for trial in [*each[run % len(each) :], *each[: run % len(each)]]:
            spent = await trial.run()
            if run:
                samples[trial.about].append(spent)
    gc.unfreeze()
    return samples


@contextmanager
def observed(folder: Path) -> Iterator[Observer]:
    """An observer as a server has it, whose ledger and log are files in a folder."""
    settings = Settings.model_validate({"model": "base", "usage": folder / "usage"})
    observer = Observer.start(settings, CollectorRegistry())
    handler = logging.FileHandler(folder / "server.log")
    handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s"))
    make, level = logging.getLogRecordFactory(), logs.log.level
    logs.mask_secrets()
    logs.log.setLevel(logging.INFO)
    logs.log.addHandler(handler)
    try:
        yield observer
    finally:
        logs.log.removeHandler(handler)
        logs.log.setLevel(level)
        logging.setLogRecordFactory(make)
        handler.close()
        observer.close()


def run(folder: Path, full: bool) -> Outcome:
    """Fill a store, make a key, measure; there is one form."""
    store = filled(folder / "stores" / str(NAMES), NAMES)
    with tempfile.TemporaryDirectory() as scratch, observed(Path(scratch)) as observer, key_of(store) as key:
        samples = uvloop.run(measured(trials(gate(store, observer), key), RUNS))
    return outcome(samples)


@contextmanager
def key_of(store: Store) -> Iterator[str]:
    """A key with every limit, which is revoked at the end."""
    ring = KeyRing(store)
    issued = ring.create(KEY, TERMS)
    try:
        yield issued.text
    finally:
        ring.revoke(KEY)


def outcome(samples: Samples) -> Outcome:
    """What each stage adds to those before it, and all of them to the bare application."""
    steps = list(samples)[:-2]
    added = {after: paired_difference(samples[after], samples[before]) for before, after in pairwise(steps)}
    whole = paired_difference(samples[steps[-1]], samples[BARE])
    streamed = paired_difference(samples[STREAMED], samples[f"{BARE}, streamed"])
    rows = [*added.items(), ("all of it", whole), (STREAMED, streamed)]
    return Outcome(
        runs=len(samples[BARE]),
        parameters={"names": NAMES, "requests_per_run": COUNT, "unit": "us", "tokens": TOKENS},
        results={about: asdict(estimate) for about, estimate in rows},
        samples=samples,
        table=Table(("µs a request", "added"), tuple((about, _written(estimate)) for about, estimate in rows)),
        notes=(
            f"medians of {len(samples[BARE])} runs [95% interval]; an adapter by its tag, {NAMES:,} names in the store",
            f"the bare application takes {median(samples[BARE]).value:.0f} µs",
        ),
        goals=(Goal("µs that the whole gate adds", LIMIT, whole.value),),
    )


def _written(estimate: Estimate) -> str:
    return f"{estimate.value:.0f} [{estimate.low:.0f}, {estimate.high:.0f}]"


BENCHMARK = Benchmark("edge_cost", "processor time of the gate with keys, limits and ledger, by its stages", run)
