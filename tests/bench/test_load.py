import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.bench.errors import InvalidRun
from tests.bench.load import Answer, Body, Load, ask, closed_loop


class Completions:
    """A server that streams three pieces, and counts how many requests it works on at once."""

    def __init__(self) -> None:
        self.working = self.most = self.answered = 0
        self.app = Starlette(routes=[Route("/v1/completions", self.complete, methods=["POST"])])

    async def complete(self, request: Request) -> Response:
        if (await request.json())["model"] != "base":
            return JSONResponse({"error": {"message": "there is no adapter"}}, status_code=404)
        return StreamingResponse(self.pieces(), media_type="text/event-stream")

    async def pieces(self) -> AsyncIterator[str]:
        self.working += 1
        self.most = max(self.most, self.working)
        for text in ("a", "b", "c"):
            await asyncio.sleep(0.001)
            yield f'data: {{"choices": [{{"text": "{text}"}}]}}\n\n'
        self.working -= 1
        self.answered += 1
        yield "data: [DONE]\n\n"


@pytest.fixture
def server() -> Completions:
    return Completions()


@pytest.fixture
async def client(server: Completions) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=server.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bench") as opened:
        yield opened


BODY: Body = {"model": "base", "prompt": "a", "stream": True}


async def test_every_body_is_sent_once_by_so_many_clients(server: Completions, client: httpx.AsyncClient) -> None:
    load = await closed_loop(client, [BODY] * 10, clients=3)
    assert server.answered == len(load.answers) == 10
    assert server.most == 3
    assert {answer.text for answer in load.answers} == {"abc"}
    assert all(0 < answer.first <= load.seconds for answer in load.answers)


async def test_an_error_is_no_answer(client: httpx.AsyncClient) -> None:
    with pytest.raises(InvalidRun, match="'sqll' with 404"):
        await ask(client, {**BODY, "model": "sqll"})


def test_figures_of_a_load() -> None:
    answers = (Answer(text, 5.0, (5.0 + first, 6.0)) for text, first in (("a", 0.1), ("b", 0.2), ("c", 0.6)))
    load = Load(2.0, tuple(answers))
    assert load.requests_per_second == 1.5
    assert load.first_token_ms == pytest.approx(200)
