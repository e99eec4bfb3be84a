"""Asking a server."""

import asyncio
import json
import subprocess
import sys

import httpx
import pytest

from loraloom.server.proxy.evaluation.asking import Answer, Asker
from loraloom.server.proxy.evaluation.errors import EvaluationFailed


class Chat:
    """Answers with the number that is asked, after a moment; counts what it does at once."""

    def __init__(self, status: int = 200, content: str | None = "") -> None:
        self.status, self.content = status, content
        self.running = self.most = self.seen = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.005)
        self.running -= 1
        body = json.loads(request.content)
        message = {"content": None if self.content is None else str(body["number"])}
        choices = [{"message": message, "finish_reason": "length" if body["number"] == 1 else "stop"}]
        usage = {"prompt_tokens": 7, "completion_tokens": body["number"]}
        return httpx.Response(self.status, json={"choices": choices, "usage": usage})


def asker(chat: Chat, concurrency: int = 3) -> Asker:
    client = httpx.AsyncClient(transport=httpx.MockTransport(chat), base_url="http://fake")
    return Asker(client, concurrency)


def requests(count: int) -> list[dict[str, object]]:
    return [{"model": "m", "number": number} for number in range(count)]


def test_a_missing_client_is_told_by_the_plan_and_not_by_an_import() -> None:
    program = "import sys; sys.modules['httpx'] = None\nimport loraloom.server.cli.proxy_eval\n"
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_answers_come_in_order_and_no_more_than_so_many_at_once() -> None:
    chat = Chat()
    asked = await asker(chat).ask(requests(10))
    assert [answer.text for answer in asked.answers] == [str(number) for number in range(10)]
    assert asked.answers[1] == Answer("1", 7, 1, cut=True)
    assert not asked.answers[2].cut
    assert chat.most == 3
    assert asked.tokens_per_second == sum(range(10)) / asked.seconds


async def test_an_answer_without_text() -> None:
    asked = await asker(Chat(content=None)).ask(requests(1))
    assert asked.answers[0].text == ""


async def test_a_refusal_ends_it_all() -> None:
    chat = Chat(status=404)
    with pytest.raises(EvaluationFailed, match="refused 'm' with 404"):
        await asker(chat).ask(requests(50))
    assert chat.seen < 10


async def test_a_server_that_went_away() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(gone), base_url="http://fake")
    with pytest.raises(EvaluationFailed, match="the server went away: ConnectError refused"):
        await Asker(client, 2).ask(requests(2))
