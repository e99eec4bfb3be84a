import asyncio
from collections.abc import AsyncIterator
from itertools import repeat

import httpx
import pytest

from tests.bench.errors import InvalidRun
from tests.bench.flood import Flow, Stream, flooding, flow
from tests.bench.test_load import BODY, Completions


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=Completions().app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bench") as opened:
        yield opened


async def test_so_many_requests_are_open_until_the_block_ends(client: httpx.AsyncClient) -> None:
    before = asyncio.all_tasks()
    async with flooding(client, repeat(BODY), width=3) as streams:
        while sum(len(stream.arrivals) == 3 for stream in streams) < 9:
            await asyncio.sleep(0)
            assert sum(len(stream.arrivals) < 3 for stream in streams) <= 3
    assert asyncio.all_tasks() == before


async def test_a_flood_that_is_refused_is_no_flood(client: httpx.AsyncClient) -> None:
    with pytest.raises(InvalidRun, match="404"):
        await until_refused(client)


async def until_refused(client: httpx.AsyncClient) -> None:
    before = asyncio.all_tasks()
    async with flooding(client, repeat({**BODY, "model": "sqll"}), width=3):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0)


def test_figures_are_of_the_stretch_alone() -> None:
    streams = [
        Stream(1.0, [9.0, 10.0, 10.5, 11.0]),  # two steps lie within
        Stream(8.0, [11.5, 12.0, 12.5]),  # it waited for 3.5 s, and has one step within
        Stream(7.0),  # it still waits, for 5 s
        Stream(0.0, [9.0]),  # it waited for longer, but before
    ]
    assert flow(streams, 10.0, 12.0) == Flow(tokens_per_second=2.5, step=0.5, longest=5.0)


def test_a_flood_that_gets_nothing_is_no_figure() -> None:
    with pytest.raises(InvalidRun, match="0 tokens in 2"):
        flow([Stream(0.0, [1.0]), Stream(0.0)], 10.0, 12.0)
