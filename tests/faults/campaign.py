"""The campaign: one server under load, and one fault after the other."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from loraloom.adapters.errors import AdapterError
from loraloom.adapters.store import Store
from loraloom.demo.catalog import demo_adapters
from loraloom.demo.model import prepare
from tests.bench.servers import LORALOOM, Server, Start, free_port, started
from tests.bench.soak_answers import BASE
from tests.faults.clock import Clock, clock
from tests.faults.disk import Disk, mounted
from tests.faults.errors import CampaignError, CannotInject
from tests.faults.faults import CLIENT_TIMEOUT, Fault, Injected
from tests.faults.load import ASKERS, Keeper, keep_asking, keep_looking, keep_publishing
from tests.faults.questions import fill, questions
from tests.faults.recorder import ASK, PUBLISH, READY, Recorder, counts, until
from tests.faults.round import Result, Round
from tests.faults.site import Site

ADAPTERS = 4
SIZE = "512m"
"""Of the disk; a round that damages an adapter needs 6 MB."""
PATIENCE = 300.0
"""Seconds after which a person would be called."""
ANSWER = 60.0
"""Seconds that a client waits for an answer."""
LORA = ("--max-loras", "3", "--max-cpu-loras", "5", "--max-lora-rank", "32")
"""Fewer places than adapters are asked for, so that some are always read from disk."""
ENGINE = ("--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "16", "--max-logprobs", "200")
RESTARTS = "20"
"""Within ten minutes; by default five, and a campaign kills more often than that."""


@dataclass(frozen=True)
class Campaign:
    """What came of one.

    Attributes:
        results: of each fault.
        acknowledged: versions that were published meanwhile.
        asked: requests for adapters from the first to the last.
    """

    results: Sequence[Result]
    acknowledged: int
    asked: int


def run(
    faults: Sequence[Fault], times: Callable[[Fault], int], folder: Path, tell: Callable[[Campaign], None]
) -> Campaign:
    """Start a server in a folder, and make each fault some times.

    Args:
        faults: which.
        times: how often.
        folder: for the server's disk and all that it writes.
        tell: told after each fault of all there is so far, so that a campaign that is broken off was not in vain.

    Raises:
        CannotInject: the store gets no disk of its own here.
        InvalidRun, CampaignError: the server does not start, or does not answer as expected without any fault.
    """
    model = prepare()
    with ExitStack() as held:
        disk = held.enter_context(mounted(folder / "disk", SIZE))
        fill(disk.store, model, demo_adapters()[:ADAPTERS])
        ticking = _clock(folder)
        server = held.enter_context(started(_start(model, disk, ticking, folder), folder))
        server.wait_until_ready()
        campaign = asyncio.run(_with_load(server, disk, ticking, folder, model, faults, times, tell))
        _is_whole(Store.open(disk.store, create=False))
    return campaign


def _clock(folder: Path) -> Clock | None:
    with suppress(CannotInject):
        return clock(folder)
    return None


def _start(model: Path, disk: Disk, ticking: Clock | None, folder: Path) -> Start:
    port = free_port()
    command = [*LORALOOM, str(model), "--served-name", BASE, "--adapters", str(disk.store), "--port", str(port), *LORA]
    command += ["--cache", str(folder / "cache"), "--jobs", str(folder / "jobs")]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "LORALOOM_CLIENT_TIMEOUT": str(CLIENT_TIMEOUT),
        "LORALOOM_MAX_RESTARTS": RESTARTS,
        "LORALOOM_USAGE": str(folder / "usage"),
        **(ticking.environment if ticking else {}),
    }
    return Start("server", [*command, "--", *ENGINE], port, environment)


async def _with_load(
    server: Server,
    disk: Disk,
    ticking: Clock | None,
    folder: Path,
    model: Path,
    faults: Sequence[Fault],
    times: Callable[[Fault], int],
    tell: Callable[[Campaign], None],
) -> Campaign:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=ANSWER, limits=limits) as client:
        asked = await questions(client, demo_adapters()[:ADAPTERS])
        (folder / "kept").mkdir()
        site = Site(server, client, disk, ticking, asked, Keeper(folder / "kept"), Recorder(), folder, model)
        async with asyncio.TaskGroup() as group:
            with _load(group, site):
                await until(lambda: site.recorder.is_back(0, site.models), PATIENCE, "answers before any fault")
                results: list[Result] = []
                for fault in faults:
                    results.append(await _made(fault, times(fault), site))
                    tell(_so_far(results, site))
        return _so_far(results, site)


def _so_far(results: Sequence[Result], site: Site) -> Campaign:
    asked = sum(each.who == ASK for each in site.recorder.seen)
    return Campaign(tuple(results), len(site.keeper.acknowledged), asked)


@contextmanager
def _load(group: asyncio.TaskGroup, site: Site) -> Iterator[None]:
    """Keep the server busy for the length of a block."""
    tasks = [
        group.create_task(keep_asking(site.client, site.questions, site.recorder, seed * len(site.questions) // ASKERS))
        for seed in range(ASKERS)
    ]
    tasks.append(group.create_task(keep_publishing(site.client, site.keeper, site.recorder)))
    tasks.append(group.create_task(keep_looking(site.client, site.recorder)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _made(fault: Fault, times: int, site: Site) -> Result:
    """Make a fault some times; what this machine does not permit is left out."""
    rounds: list[Round] = []
    try:
        for number in range(times):
            rounds.append(await _round(fault, site))
            _say(fault, number, rounds[-1])
    except CannotInject as error:
        return Result(fault.name, fault.what, fault.how, rounds, str(error))
    return Result(fault.name, fault.what, fault.how, rounds)


async def _round(fault: Fault, site: Site) -> Round:
    began, wrong = time.monotonic(), len(site.recorder.wrong)
    injected, unlike = await _injected(fault, site)
    whole = await _whole(site, injected.since)
    seen = site.recorder.between(began, time.monotonic())
    lost, which = await _lost(site)
    return Round(
        seconds=injected.seconds if injected.seconds is not None else _first(fault, site, injected.since),
        whole=whole,
        asked=counts(seen, ASK),
        published=counts(seen, PUBLISH),
        ready=counts(seen, READY),
        wrong=len(site.recorder.wrong) - wrong,
        lost=lost,
        unlike=f"{unlike} {which}".strip(),
    )


async def _injected(fault: Fault, site: Site) -> tuple[Injected, str]:
    """Make a fault, and tell in which way it went otherwise than promised; raises `CannotInject`."""
    try:
        return await fault.inject(site), ""
    except CannotInject:
        raise
    except Exception as error:  # whatever it is, the other rounds are worth having
        return Injected(time.monotonic()), repr(error)


async def _lost(site: Site) -> tuple[int, str]:
    """How many acknowledged versions are lost, and which, or why that cannot be told."""
    try:
        lost = await asyncio.to_thread(site.keeper.lost, site.disk.store)
    except (AdapterError, OSError) as error:
        return 0, repr(error)
    return len(lost), f"lost: {', '.join(lost[:5])}" if lost else ""


async def _whole(site: Site, since: float) -> float | None:
    """Seconds until everything is back; None when it does not come back by itself."""
    with suppress(CampaignError):
        await until(lambda: site.recorder.is_back(since, site.models), PATIENCE, "everything back")
        return time.monotonic() - since
    return None


def _first(fault: Fault, site: Site, since: float) -> float | None:
    """Seconds until the first good answer."""
    good = site.recorder.good_since(since, fault.healed_by)
    return good[0].ended - since if good else None


def _say(fault: Fault, number: int, done: Round) -> None:
    told = f"{done.seconds:.1f} s" if done.seconds is not None else "never"
    whole = f"{done.whole:.1f} s" if done.whole is not None else "never"
    print(
        f"{fault.name} {number + 1}: answers after {told}, all after {whole}; {dict(done.asked)}; "
        f"published {dict(done.published)}; ready {dict(done.ready)}; wrong {done.wrong}, lost {done.lost} "
        f"{done.unlike}",
        flush=True,
    )


def _is_whole(store: Store) -> None:
    """Raises `CampaignError` if anything in the store is damaged in the end."""
    damaged = [str(finding) for finding in store.verify() if finding.kind == "damaged"]
    if damaged:
        raise CampaignError(f"the store is damaged in the end: {'; '.join(damaged[:5])}")
