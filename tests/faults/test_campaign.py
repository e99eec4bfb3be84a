"""What a campaign makes of a fault that does not go as it should."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from loraloom.adapters.store import Store
from tests.faults.campaign import _injected, _lost
from tests.faults.errors import CampaignError, CannotInject
from tests.faults.faults import FAULTS, Fault, Injected
from tests.faults.site import RUNNING, Site

SITE: Any = None


def failing(error: Exception) -> Callable[[Site], Awaitable[Injected]]:
    async def inject(_: Site) -> Injected:
        raise error

    return inject


@pytest.mark.parametrize(
    "error",
    [CampaignError("8 were gone"), TimeoutError(), KeyError("created"), ExceptionGroup("some", [TimeoutError()])],
)
async def test_whatever_goes_wrong_is_noted_and_the_campaign_goes_on(error: Exception) -> None:
    injected, unlike = await _injected(Fault("odd", "it is odd", "by hand", failing(error)), SITE)
    assert (injected.seconds, unlike) == (None, repr(error))


async def test_what_this_machine_does_not_permit_is_told_apart() -> None:
    with pytest.raises(CannotInject):
        await _injected(Fault("odd", "it is odd", "by hand", failing(CannotInject("no mounts"))), SITE)


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (lambda _: [], (0, "")),
        (lambda _: ["a@1", "b@2"], (2, "lost: a@1, b@2")),
        (lambda folder: Store.open(folder, create=False), (0, "StoreError(")),
    ],
)
async def test_what_is_lost_is_told_or_why_nobody_knows(lost: Any, told: tuple[int, str], tmp_path: Path) -> None:
    site: Any = SimpleNamespace(keeper=SimpleNamespace(lost=lost), disk=SimpleNamespace(store=tmp_path / "none"))
    number, which = await _lost(site)
    assert (number, which[: len(told[1]) or None]) == told


async def test_a_server_that_fails_while_clients_leave_is_one_error_and_no_client_stays() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"data: {}\n\n"
            await asyncio.sleep(0)

    async def metric(pattern: str) -> float:
        if pattern == RUNNING:
            raise httpx.ReadTimeout("no metrics")
        return 0.0

    (fault,) = [each for each in FAULTS if each.name == "clients-leave"]
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=endless()))
    async with httpx.AsyncClient(transport=transport, base_url="http://it") as client:
        site: Any = SimpleNamespace(client=client, metric=metric, questions=[SimpleNamespace(model="a", prompt="b")])
        with pytest.raises(httpx.ReadTimeout):
            await fault.inject(site)
        assert asyncio.all_tasks() == {asyncio.current_task()}
