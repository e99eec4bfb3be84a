import json

import httpx
import pytest

from tests.faults.answers import Question, ask, broken, created, judged_stream, refusal
from tests.faults.errors import CampaignError
from tests.faults.recorder import GOOD, WRONG

QUESTION = Question("date", "date@1", "When?", "1958-06-23")


def reply(model: str = "date@1", text: str = "1958-06-23") -> dict[str, object]:
    return {"model": model, "choices": [{"message": {"content": text}}]}


def stream(*texts: str, model: str = "date@1", end: str = "[DONE]") -> str:
    events = [json.dumps({"model": model, "choices": [{"delta": {"content": text}}]}) for text in texts]
    return "".join(f"data: {event}\n\n" for event in (*events, *([end] if end else [])))


async def ending(status: int, content: object) -> str:
    return await ending_of(status, json.dumps(content), stream=False)


async def ending_of(status: int, text: str, stream: bool) -> str:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text=text))
    async with httpx.AsyncClient(transport=transport, base_url="http://it") as client:
        return await ask(client, QUESTION, stream=stream)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": "date@1", "choices": []}', '{"model": 1, "choices": [1]}'])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_none_is_wrong(text: str, stream: bool) -> None:
    sent = f"data: {text}\n\ndata: [DONE]\n\n" if stream else text
    assert await ending_of(200, sent, stream) == WRONG


async def test_a_stream_of_nothing_is_wrong() -> None:
    assert await ending_of(200, "data: [DONE]\n\n", stream=True) == WRONG


def test_an_answer_says_when_it_was_made_or_what_it_is_instead() -> None:
    assert created(httpx.Response(200, json={"created": 12})) == 12
    for reply in (httpx.Response(503, json={"error": {}}), httpx.Response(200, text="<html>")):
        with pytest.raises(CampaignError, match=f"answered with {reply.status_code}"):
            created(reply)


async def test_an_answer_is_good_if_text_and_version_are() -> None:
    assert await ending(200, reply()) == GOOD
    assert await ending(200, reply(text="1958-06-24")) == WRONG
    assert await ending(200, reply(model="date@2")) == WRONG


async def test_an_error_is_told_by_its_status_and_code() -> None:
    shaped = {"error": {"message": "wait", "type": "server_error", "param": None, "code": "engine_unavailable"}}
    assert await ending(503, shaped) == "503 engine_unavailable"
    assert refusal(502, b"<html>") == "502 in no known shape"
    assert refusal(500, b'{"error": {"code": "x"}}') == "500 in no known shape"


def test_a_stream_is_judged_only_when_it_came_to_its_end() -> None:
    assert judged_stream(QUESTION, stream("1958-", "06-23")) == GOOD
    assert judged_stream(QUESTION, stream("1958-")) == WRONG
    assert judged_stream(QUESTION, stream("1958-", end="")) == "broken off"
    assert judged_stream(QUESTION, stream("1958-", end='{"error": {"code": 503}}')) == "ended by an error event (503)"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (httpx.ConnectError(""), "no connection"),
        (httpx.ReadTimeout(""), "no answer in time"),
        (httpx.RemoteProtocolError(""), "broken off"),
    ],
)
def test_a_connection_that_fails_is_told(error: httpx.HTTPError, told: str) -> None:
    assert broken(error) == told
