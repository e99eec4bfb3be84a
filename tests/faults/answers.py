"""How an answer to a client is judged: right, wrong, or refused in which way."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from tests.faults.errors import CampaignError
from tests.faults.recorder import GOOD, WRONG

CHAT = "/v1/chat/completions"
TOKENS = 32


@dataclass(frozen=True)
class Question:
    """A prompt whose right answer only one version gives.

    Attributes:
        model: what is asked for.
        named: what the answer has to call it: the same with its versions.
        prompt: the user's message.
        expected: the right answer.
    """

    model: str
    named: str
    prompt: str
    expected: str

    def body(self, stream: bool) -> dict[str, object]:
        """The request, greedy."""
        messages = [{"role": "user", "content": self.prompt}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": TOKENS, "stream": stream}

    def verdict(self, model: str, text: str) -> str:
        """`GOOD` or `WRONG`."""
        return GOOD if (model, text.strip()) == (self.named, self.expected.strip()) else WRONG


async def ask(client: httpx.AsyncClient, question: Question, stream: bool) -> str:
    """Ask, and tell how it ended."""
    try:
        reply = await client.post(CHAT, json=question.body(stream))
    except httpx.HTTPError as error:
        return broken(error)
    if reply.status_code != 200:
        return refusal(reply.status_code, reply.content)
    try:
        return judged_stream(question, reply.text) if stream else _judged(question, reply.json())
    except (ValueError, LookupError, TypeError, AttributeError):  # it has not the shape of an answer
        return WRONG


def broken(error: httpx.HTTPError) -> str:
    """What became of a connection."""
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else "broken off"


def refusal(status: int, body: bytes) -> str:
    """An error's status and code, if it has OpenAI's shape."""
    try:
        error = json.loads(body)["error"]
        code, _ = str(error["code"]), (error["message"], error["type"], error["param"])
    except (ValueError, LookupError, TypeError):
        return f"{status} in no known shape"
    return f"{status} {code}"


def judged_stream(question: Question, text: str) -> str:
    """Judge a stream of server-sent events that has come to its end, whole or not."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    events: list[dict[str, Any]] = [json.loads(line) for line in lines if line != "[DONE]"]
    errors = [event["error"] for event in events if "error" in event]
    if errors:
        return f"ended by an error event ({errors[0].get('code')})"
    if "[DONE]" not in lines:
        return "broken off"
    said = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    return question.verdict(str(events[0]["model"]), said)


def created(reply: httpx.Response) -> float:
    """When an answer says that it was made; raises `CampaignError` where it does not."""
    try:
        return float(reply.json()["created"])
    except (ValueError, LookupError, TypeError):
        raise CampaignError(f"it is answered with {reply.status_code}: {reply.text[:300]}") from None


def _judged(question: Question, reply: dict[str, Any]) -> str:
    return question.verdict(str(reply["model"]), str(reply["choices"][0]["message"]["content"]))
