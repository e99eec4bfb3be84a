"""What the gate costs where all of it is in use, and which of its parts does.

Keys are in force, every limit is set, and requests are counted, written to the ledger, and told in the log. A request
asks for an adapter by a tag. As in `edge_cpu` there are no sockets, and what is measured is the processor time of the
whole process, threads included, in turns. What a stage costs is the difference that it makes to those before it, in
what is behind it too: what is known of a request after `select`, for one, is more to write down. What a part costs that
is no stage is the difference that it makes to leave it out. The adapters are asked for in turn, as fast as one after
the other can be answered; where nobody has asked for one a moment ago, the store is looked at in a thread.
"""

import gc
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import TypeAlias

import uvloop
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from loraloom.adapters.mixtures.mix import Limit
from loraloom.adapters.store import Store
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from loraloom.server.gate.exchange import ACCOUNT, ASGIApp, Receive, Scope, Send, Stage
from loraloom.server.gate.middleware import GateMiddleware
from loraloom.server.gate.recent import Recent
from loraloom.server.gate.selection import Selector
from loraloom.server.observe import logs
from loraloom.server.observe.account import Account
from loraloom.server.observe.observer import Observer
from loraloom.server.settings import Settings
from tests.bench.asgi import Request, stub
from tests.bench.edge_cpu import BARE, BASE_NAME, Trial, gate
from tests.bench.edge_store import TAG, filled, used_names
from tests.bench.estimate import Estimate, median, paired_difference
from tests.bench.outcome import Goal, Outcome, Table
from tests.bench.registry import Benchmark

NAMES = 1_000
"""In the store."""
RUNS, COUNT = 21, 200
"""Runs, and requests in one."""
TURNS = 5
"""Messages in a request's body."""
PROMPT, TOKENS, LONG = 31, 3, 100
"""Tokens of a prompt, of an answer, and of an answer that is streamed, each token for itself."""
LIMIT = 300.0
"""Microseconds of processor time that the whole gate may add to a request."""
WHOLE = "all of it"
LEDGER, LOG, LIMITS = "its line in the ledger", "its line in the log", "its key's limits"
PARTS = (LEDGER, LOG, LIMITS)
"""What is left out, each for itself."""
LOOKING = "all of it, with a look at the store for each request"
STREAMED = f"all of it, {LONG} tokens streamed"
BARE_STREAMED = f"{BARE}, streamed"
PLENTY = 10**9
KEYS = {
    "limited": Terms(adapters=("*",), rpm=PLENTY, tpm=PLENTY, concurrency=1000),
    "unlimited": Terms(adapters=("*",)),
}


@dataclass(frozen=True)
class Some:
    """The first stages of a gate, in place of all."""

    stages: Sequence[Stage]


class Untold(Observer):
    """An observer that does without the log."""

    def ended(self, account: Account) -> None:
        """See `Observer`."""
        self.traffic.ended(account)
        assert self.ledger is not None, "it is as the other one but for the log"
        self.ledger.add(account)


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


def trials(store: Store, observer: Observer, keys: Mapping[str, str]) -> list[Trial]:
    """Every application: bare, behind ever more stages, behind all of them, and behind all but one part."""
    whole = gate(store, observer)
    forgetful = Recent(lambda: store.changes, lifetime=0.0)
    looking = Selector(store, [BASE_NAME], whole.base, Limit(whole.selector.max_rank, False), recent=forgetful)
    stages = list(whole.stages)
    limited, unlimited = (_requests(store, keys[name]) for name in ("limited", "unlimited"))
    unwritten, untold = replace(observer, ledger=None), Untold(**vars(observer))
    return [
        Trial(BARE, stub(1), limited(None), 200),
        *(_trial(_name(stages[:count]), Some(stages[:count]), limited) for count in range(len(stages) + 1)),
        _trial(WHOLE, whole, limited),
        _trial(LEDGER, replace(whole, observer=unwritten), limited),
        _trial(LOG, replace(whole, observer=untold), limited),
        _trial(LIMITS, whole, unlimited),
        _trial(LOOKING, replace(whole, selector=looking), limited),
        Trial(BARE_STREAMED, stub(LONG), limited(None), 200),
        _trial(STREAMED, whole, limited, pieces=LONG),
    ]


def _name(stages: Sequence[Stage]) -> str:
    return stages[-1].__name__.replace("_", " ") if stages else "the account"  # type: ignore[attr-defined]


Asking: TypeAlias = Callable[[object], list[Request]]
"""Requests for the gate, or what stands in for one, that is given."""


def _requests(store: Store, key: str) -> Asking:
    names = used_names(len(store.names()))

    def asking(shared: object) -> list[Request]:
        app = Starlette()
        app.state.loraloom = shared
        each = [Request.chat(app, f"{name}@{TAG}", TURNS, key) for name in names]
        return list(islice(cycle(each), COUNT))

    return asking


def _trial(about: str, shared: object, asking: Asking, pieces: int = 1) -> Trial:
    return Trial(about, GateMiddleware(counting(stub(pieces), pieces)), asking(shared), 200)


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
    """Fill a store, make keys, measure; there is one form."""
    store = filled(folder / "stores" / str(NAMES), NAMES)
    with tempfile.TemporaryDirectory() as scratch, observed(Path(scratch)) as observer, keys_of(store) as keys:
        return outcome(uvloop.run(measured(trials(store, observer, keys), RUNS)))


@contextmanager
def keys_of(store: Store) -> Iterator[dict[str, str]]:
    """The secrets of `KEYS`, by their names; they are revoked at the end."""
    ring = KeyRing(store)
    secrets = {name: ring.create(name, terms).text for name, terms in KEYS.items()}
    try:
        yield secrets
    finally:
        for name in secrets:
            ring.revoke(name)


def outcome(samples: Samples) -> Outcome:
    """What each stage adds to those before it, what parts add to all others, and all to the bare application."""
    stages = list(samples)[: list(samples).index(WHOLE)]
    added = {
        **{after: paired_difference(samples[after], samples[before]) for before, after in pairwise(stages)},
        WHOLE: paired_difference(samples[WHOLE], samples[BARE]),
        **{f"of which {part}": paired_difference(samples[WHOLE], samples[part]) for part in PARTS},
        LOOKING: paired_difference(samples[LOOKING], samples[BARE]),
        STREAMED: paired_difference(samples[STREAMED], samples[BARE_STREAMED]),
    }
    return Outcome(
        runs=len(samples[BARE]),
        parameters={"names": NAMES, "requests_per_run": COUNT, "unit": "us", "tokens": TOKENS},
        results={about: asdict(estimate) for about, estimate in added.items()},
        samples=samples,
        table=Table(("µs a request", "added"), tuple((about, _written(each)) for about, each in added.items())),
        notes=(
            f"medians of {len(samples[BARE])} runs [95% interval]; an adapter by its tag, {NAMES:,} names in the store",
            f"the bare application takes {median(samples[BARE]).value:.0f} µs",
        ),
        goals=(
            Goal("µs that the whole gate adds", LIMIT, added[WHOLE].value),
            Goal("µs with a look at the store for each request", LIMIT, added[LOOKING].value),
        ),
    )


def _written(estimate: Estimate) -> str:
    return f"{estimate.value:.0f} [{estimate.low:.0f}, {estimate.high:.0f}]"


BENCHMARK = Benchmark("edge_cost", "processor time of the gate with keys, limits and ledger, by its stages", run)
