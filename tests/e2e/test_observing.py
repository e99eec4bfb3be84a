"""What a server with keys tells of its requests: to Prometheus, in the ledger and the log, and in traces."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.e2e.serving import BASE, chat_body, error_of, eventually
from tests.e2e.tenants import CHAT, ENDLESS, PATIENCE, SEATS, SHARED, Tenants, answer_in, chunks_in, question, stream
from tests.server.observe.queries import known_from, problems, queries, with_recorded

pytestmark = pytest.mark.engine

COUNTED = {"stream": True, "stream_options": {"include_usage": True}}
PROMPT, EXPECTED = question("red/date")
GREEDY = {"model": "red/date", "temperature": 0}


async def test_every_query_of_the_board_and_the_rules_can_be_answered(tenants: Tenants) -> None:
    """By one scrape, while a request runs and another one waits for all seats that its key can have."""
    async with tenants.async_client("red") as red:
        assert answer_in(await red.post(CHAT, json=chat_body("red/date", PROMPT))) == EXPECTED
        assert (await red.post(CHAT, json=chat_body("red/nothing", PROMPT))).status_code == 404
        body = chat_body(BASE, "Hello", **ENDLESS)
        async with stream(red, body):
            waiting = asyncio.ensure_future(red.post(CHAT, json={**body, "n": SEATS - 1, "temperature": 1}))
            await tenants.until(1, "waiting", "red")
            known = with_recorded(known_from(tenants.scrape()))
            waiting.cancel()
            await asyncio.wait({waiting})
            await tenants.until(0, "waiting", "red")
    await tenants.until_idle("red")
    assert {where: wrong for where, query in queries() if (wrong := problems(query, known))} == {}


PROMPTS, OUTPUTS = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


async def usage_told(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> tuple[str, int, int]:
    """Ask, streamed or not; the answer's id, and the tokens of prompt and answer that it tells in all of its parts."""
    async with client.stream("POST", path, json=body) as reply:
        lines = [line async for line in reply.aiter_lines()]
    assert reply.status_code == 200, lines
    parts = chunks_in(lines) if body.get("stream") else [json.loads("".join(lines))]
    told = [one["usage"] for part in parts for one in (part, part.get("message"), part.get("response")) if _counts(one)]
    prompt, output = (max(usage.get(name) or 0 for usage in told for name in names) for names in (PROMPTS, OUTPUTS))
    return reply.headers["x-request-id"], prompt, output


def _counts(part: dict[str, Any] | None) -> bool:
    return part is not None and part.get("usage") is not None


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, chat_body("red/date", PROMPT)),
    "chat streamed": (CHAT, chat_body("red/date", PROMPT, **COUNTED)),
    "two chats": (CHAT, {**chat_body("red/words", PROMPT), "temperature": 1, "n": 2, "max_tokens": 5}),
    "completions": ("/v1/completions", {**GREEDY, "prompt": ["One, two,", "Three, four, five,"], "max_tokens": 4}),
    "completions streamed": ("/v1/completions", {**GREEDY, "prompt": "One, two,", "max_tokens": 4, **COUNTED}),
    "responses": ("/v1/responses", {**GREEDY, "input": PROMPT}),
    "responses streamed": ("/v1/responses", {**GREEDY, "input": PROMPT, "stream": True}),
    "messages": ("/v1/messages", {**chat_body(BASE, PROMPT), "max_tokens": 6}),
    "messages streamed": ("/v1/messages", {**chat_body(BASE, PROMPT), "max_tokens": 6, "stream": True}),
}


async def test_the_ledger_and_the_metrics_have_the_tokens_that_answers_tell(tenants: Tenants) -> None:
    before = {key: tenants.total(f"loraloom_{key}_tokens_total", key="red") for key in ("prompt", "output")}
    async with tenants.async_client("red") as red:
        told = dict(
            zip(ASKED, await asyncio.gather(*(usage_told(red, *asked) for asked in ASKED.values())), strict=True)
        )
    lines = {name: await tenants.line(id) for name, (id, _, _) in told.items()}
    counted = {name: (line["prompt"], line["output"], line["ending"]) for name, line in lines.items()}
    assert counted == {name: (prompt, output, "answered") for name, (_, prompt, output) in told.items()}
    assert {(line["key"], line["estimated"], line["status"]) for line in lines.values()} == {("red", False, 200)}
    assert {line["model"] for line in lines.values()} == {"red/date@1", "red/words@1", BASE}
    for what in ("prompt", "output"):
        now = tenants.total(f"loraloom_{what}_tokens_total", key="red")
        assert now - before[what] == sum(line[what] for line in lines.values())


async def test_usage_sums_the_ledger_by_key(tenants: Tenants) -> None:
    for key in ("red", "blue"):
        with tenants.client(key) as client:
            reply = client.post(CHAT, json=chat_body(SHARED, "Write SQL: List products.", max_tokens=3))
        await tenants.line(reply.headers["x-request-id"])
    sums = {group["key"]: group for group in json.loads(tenants.command("usage", "--by", "key", "--json"))["groups"]}
    lines = tenants.lines()
    assert sums.keys() == {line["key"] for line in lines} >= {"red", "blue"}
    for key, group in sums.items():
        for field in ("prompt", "cached", "output"):
            assert group[field] == sum(line[field] for line in lines if line["key"] == key)


async def test_the_log_calls_a_request_what_its_answer_calls_it(tenants: Tenants) -> None:
    with tenants.client("red") as red:
        answered = red.post(CHAT, json=chat_body("red/date", PROMPT), headers={"x-request-id": "mine 1"})
        refused = red.post(CHAT, json=chat_body("blue/home", PROMPT))
    ids = [reply.headers["x-request-id"] for reply in (answered, refused)]

    async def logged() -> bool:
        return set(ids) <= {line["id"] for line in tenants.logged()}

    await eventually(logged, PATIENCE)
    first, second = (next(line for line in tenants.logged() if line["id"] == id) for id in ids)
    assert (first["client_id"], first["key"], first["model"], first["status"]) == ("mine1", "red", "red/date@1", 200)
    assert first["output"] == answered.json()["usage"]["completion_tokens"]
    assert (second["status"], second["code"], second["ending"]) == (404, error_of(refused)["code"], "refused")


async def test_the_engines_span_is_within_that_of_the_request_and_both_in_the_clients_trace(tenants: Tenants) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with tenants.client("red") as red:
        headers = {"traceparent": f"00-{trace}-{parent}-01"}
        reply = red.post(CHAT, json=chat_body("red/date", PROMPT), headers=headers)
    id = reply.headers["x-request-id"]

    async def complete() -> bool:
        return {"select", "admit", "lease", "llm_request"} <= {span.name for span in tenants.spans.of_request(id)}

    await eventually(complete, PATIENCE)
    spans = {span.name: span for span in tenants.spans.of_request(id)}
    ours = spans.pop(f"POST {CHAT}")
    assert (ours.trace, ours.parent, ours.said["loraloom.key"]) == (trace, parent, "red")
    assert {span.parent for span in spans.values()} == {ours.id}
    engine = spans["llm_request"]
    assert engine.scope.startswith("vllm")
    assert engine.said["gen_ai.usage.completion_tokens"] == ours.said["gen_ai.usage.output_tokens"]
    assert ours.said["gen_ai.usage.output_tokens"] == reply.json()["usage"]["completion_tokens"]
