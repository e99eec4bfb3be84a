"""The faults: how each is made, how long it lasts, and what else must be true while it does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.faults.answers import CHAT, created
from tests.faults.errors import CampaignError, CannotInject
from tests.faults.load import ASKERS
from tests.faults.recorder import ASK, PUBLISH
from tests.faults.rude import closed, endless, half_a_body, leave, unread
from tests.faults.site import GONE, RUNNING, Site
from tests.faults.slowness import slowed
from tests.faults.victim import damaged_and_healed

HOLD = 3.0
"""Seconds that most faults last."""
HANG = 8.0
"""Seconds that a disk hangs: longer than the server waits for one look into the store."""
SLOW = 0.2
"""Seconds that each open and each read of a slow disk takes."""
CLIENT_TIMEOUT = 3
"""Seconds that the server gives its clients here."""
DAY = 86400
_RUDE = 8
"""Clients that are so at a time; more than ask, so that their requests can be told from the load's."""


@dataclass(frozen=True)
class Injected:
    """A fault that is over.

    Attributes:
        since: when service could begin to come back, by `time.monotonic`: when a process died, or a disk was back.
        seconds: how long that took, where the fault itself is the one to tell.
    """

    since: float
    seconds: float | None = None


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: for the command line.
        what: the same in words, for people who read the table.
        how: how it is made.
        inject: makes it once and takes it back.
        healed_by: whose good answer shows that it is over.
        kills: whether the server has to start again.
    """

    name: str
    what: str
    how: str
    inject: Callable[[Site], Awaitable[Injected]]
    healed_by: str = ASK
    kills: bool = False


def _kill(wanted: str) -> Callable[[Site], Awaitable[Injected]]:
    async def inject(site: Site) -> Injected:
        site.kill(wanted)
        return Injected(time.monotonic())

    return inject


def _lasting(
    make: Callable[[Site], AbstractContextManager[None]], seconds: float = HOLD
) -> Callable[[Site], Awaitable[Injected]]:
    async def inject(site: Site) -> Injected:
        with make(site):
            await asyncio.sleep(seconds)
        return Injected(time.monotonic())

    return inject


async def _jump(site: Site) -> Injected:
    """A day ahead, a day behind, and back; the server has to have noticed."""
    if site.clock is None:
        raise CannotInject("the library that moves the clock could not be built")
    try:
        for days in (1, -1):
            site.clock.set_ahead(days * DAY)
            await asyncio.sleep(HOLD / 2)
            question = site.questions[0]
            reply = await site.client.post(CHAT, json=question.body(stream=False))
            ahead = created(reply) - time.time()
            if abs(ahead - days * DAY) > HOLD * 20:
                raise CampaignError(f"the server's clock is {ahead:.0f} s ahead, not {days} days")
    finally:
        site.clock.set_ahead(0)
    return Injected(time.monotonic())


async def _leave(site: Site) -> Injected:
    """Streams whose clients hang up."""
    before, gone, question = await site.metric(GONE), asyncio.Event(), site.questions[0]
    body = endless(question.model, question.prompt)
    clients = [asyncio.ensure_future(leave(site.client, body, gone)) for _ in range(_RUDE)]
    try:
        await _seats(site, lambda running: running > ASKERS)
        await asyncio.sleep(1)
    finally:
        gone.set()
        await asyncio.wait(clients)
    for client in clients:
        client.result()
    return await _seats_back(site, before)


async def _do_not_read(site: Site) -> Injected:
    """Streams whose clients stay, and take nothing."""
    before, question = await site.metric(GONE), site.questions[0]
    body = endless(question.model, question.prompt)
    connections = [unread(site.address, body) for _ in range(_RUDE)]
    try:
        await _seats(site, lambda running: running > ASKERS)
        return await _seats_back(site, before)
    finally:
        closed(connections)


async def _seats(site: Site, enough: Callable[[float], bool], patience: float = 120) -> None:
    async with asyncio.timeout(patience):
        while not enough(await site.metric(RUNNING)):
            await asyncio.sleep(0.05)


async def _seats_back(site: Site, gone: float) -> Injected:
    """Wait until the engine works on nothing but the load, and see that it has dropped the rest."""
    began = time.monotonic()
    await _seats(site, lambda running: running <= ASKERS)
    seconds = time.monotonic() - began
    dropped = await site.metric(GONE) - gone
    if dropped < _RUDE:
        raise CampaignError(f"{dropped:.0f} requests were given up, and {_RUDE} clients were gone")
    return Injected(began, seconds)


async def _half_bodies(site: Site) -> Injected:
    began = time.monotonic()
    ends = await asyncio.gather(*(half_a_body(site.address, 10 * CLIENT_TIMEOUT) for _ in range(_RUDE)))
    if set(ends) != {"408 body_too_slow"}:
        raise CampaignError(f"half a request is answered with {', '.join(sorted(set(ends)))}")
    return Injected(began, time.monotonic() - began)


async def _damage(site: Site) -> Injected:
    return Injected(await damaged_and_healed(site))


ENGINE = ("enginecore", "worker")
FAULTS: Sequence[Fault] = (
    Fault("engine-killed", "the engine dies", "SIGKILL to the engine's process", _kill("enginecore"), kills=True),
    Fault(
        "engine-stopped",
        f"the engine stands still for {HOLD:g} s",
        "SIGSTOP and SIGCONT to the engine's processes",
        _lasting(lambda site: site.stopped(ENGINE)),
    ),
    Fault(
        "store-read-only",
        f"the store cannot be written for {HOLD:g} s",
        "its filesystem is mounted read-only",
        _lasting(lambda site: site.disk.read_only()),
        PUBLISH,
    ),
    Fault(
        "store-full",
        f"the store's disk is full for {HOLD:g} s",
        "a file takes all of its filesystem",
        _lasting(lambda site: site.disk.full()),
        PUBLISH,
    ),
    Fault(
        "store-slow",
        f"the store's disk is slow for {HOLD:g} s",
        f"each open and each read takes {1000 * SLOW:g} ms (fanotify)",
        _lasting(lambda site: slowed(site.disk.folder, SLOW)),
    ),
    Fault(
        "store-hangs",
        f"the store's disk hangs for {HANG:g} s",
        "no open and no read returns (fanotify)",
        _lasting(lambda site: slowed(site.disk.folder, 10 * HANG), HANG),
    ),
    Fault(
        "store-gone",
        f"the store vanishes for {HOLD:g} s",
        "its folder is renamed",
        _lasting(lambda site: site.disk.without_store()),
    ),
    Fault(
        "store-unmounted",
        f"the store is not mounted for {HOLD:g} s",
        "an empty filesystem is mounted over its folder",
        _lasting(lambda site: site.disk.covered()),
    ),
    Fault(
        "adapter-damaged",
        "an adapter's file is damaged",
        "a byte of a version that is not in memory is changed; it is asked for, and published again",
        _damage,
    ),
    Fault(
        "clients-leave",
        f"{_RUDE} clients leave in the middle of a stream",
        "their connections are closed",
        _leave,
    ),
    Fault(
        "clients-do-not-read",
        f"{_RUDE} clients do not read their stream",
        f"small windows; `client_timeout` is {CLIENT_TIMEOUT} s",
        _do_not_read,
    ),
    Fault(
        "half-bodies",
        f"{_RUDE} clients send half a request",
        f"the rest never comes; `client_timeout` is {CLIENT_TIMEOUT} s",
        _half_bodies,
    ),
    Fault(
        "clock-jumps",
        "the clock jumps a day ahead, two back, and one ahead",
        "a library that is loaded before libc tells the server's processes another time of day",
        _jump,
    ),
    Fault("server-killed", "the server's process dies", "SIGKILL to it", _kill("server"), kills=True),
)
"""In this order the two that kill are far apart: the supervisor counts restarts within ten minutes."""
