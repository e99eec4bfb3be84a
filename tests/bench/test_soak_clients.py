import time
from random import Random

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.bench.errors import InvalidRun
from tests.bench.soak_answers import GONE, Case, Standing, Verdict
from tests.bench.soak_clients import Journal, Soak, answer

CASE = Case("May 1, 2020", "2020-05-01", "date", {"date": "2020-05-01", "sql": "SELECT 1;"})
BROKEN = "broken", "cut"


async def complete(request: Request) -> Response:
    body = await request.json()
    text = CASE.seen.get(body["model"])
    if body["model"] in BROKEN:
        return PlainTextResponse('data: {"choices": []}\n\n', status_code=500 if body["model"] == "broken" else 200)
    if text is None:
        return JSONResponse({"error": {"code": "model_not_found"}}, status_code=404)
    if not body["stream"]:
        return JSONResponse({"choices": [{"message": {"content": text}}]})
    pieces = "".join(f'data: {{"choices": [{{"delta": {{"content": "{piece}"}}}}]}}\n\n' for piece in text)
    return PlainTextResponse(f'data: {{"choices": [{{"delta": {{}}}}]}}\n\n{pieces}data: [DONE]\n\n')


def connected() -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://bench")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_the_same_streamed_or_not(stream: bool) -> None:
    async with connected() as client:
        assert await answer(client, "date", "May 1, 2020", stream) == "2020-05-01"
        assert await answer(client, "nobody", "May 1, 2020", stream) is None


@pytest.mark.parametrize(("model", "reason"), [("broken", "with 500"), ("cut", "ended before its end")])
async def test_any_other_answer_is_an_error(model: str, reason: str) -> None:
    async with connected() as client:
        with pytest.raises(InvalidRun, match=reason):
            await answer(client, model, "May 1, 2020", stream=True)


@pytest.mark.parametrize(
    ("model", "behaviour", "verdict"),
    [
        ("date", "date", Verdict.RIGHT),
        ("nobody", GONE, Verdict.RIGHT),
        ("sql", "date", Verdict.WRONG_ADAPTER),
        ("nobody", "date", Verdict.REFUSED),
        ("date", GONE, Verdict.NOT_REFUSED),
    ],
)
async def test_what_is_asked_is_judged(model: str, behaviour: str | None, verdict: Verdict) -> None:
    async with connected() as client:
        soak = Soak(client, {"date": [CASE]}, {model: Standing(behaviour)}, Journal(), time.monotonic())
        await soak.ask(model, Random(0))
    assert soak.journal.verdicts == {verdict: 1}
    assert soak.journal.wrong == (verdict is not Verdict.RIGHT)


async def test_what_fails_is_counted() -> None:
    async with connected() as client:
        soak = Soak(client, {"date": [CASE]}, {"broken": Standing("date")}, Journal(), time.monotonic())
        await soak.ask("broken", Random(0))
    assert soak.journal.errors == 1
    assert not soak.journal.verdicts
