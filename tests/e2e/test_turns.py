"""Who gets the engine when many want it, what it does for those who leave, and how it comes to its end."""

import asyncio
import getpass
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.e2e.serving import BASE, chat_body, error_of
from tests.e2e.tenants import CHAT, OWN, PLACES, SEATS, SHARED, TERMS, Tenants, answer_in, question

pytestmark = pytest.mark.engine

MOST = 1500
ENDLESS = chat_body(BASE, "Tell me a story.", max_tokens=MOST, ignore_eos=True)
"""An answer that takes minutes."""


async def test_a_client_that_leaves_in_a_stream_frees_what_it_held(tenants: Tenants) -> None:
    async with tenants.async_client("red") as red, stream(red, ENDLESS) as (reply, chunks):
        for _ in range(3):
            await anext(chunks)
    await tenants.until_idle("red")
    line = await tenants.line(reply.headers["x-request-id"])
    assert (line["ending"], line["estimated"], line["key"]) == ("disconnected", False, "red")
    assert 2 <= line["output"] < MOST / 2
    assert line["prompt"] > 0


async def test_a_client_that_leaves_before_its_whole_answer_pays_an_estimate(tenants: Tenants) -> None:
    async with tenants.async_client("red") as red:
        asked = asyncio.ensure_future(red.post(CHAT, json=ENDLESS))
        await tenants.until(1, "running", "red")
        asked.cancel()
        await asyncio.wait({asked})
    await tenants.until_idle("red")

    def last() -> dict[str, object]:
        return next(line for line in reversed(tenants.logged()) if line["key"] == "red")

    line = await tenants.line(str(last()["id"]))
    assert (line["ending"], line["estimated"]) == ("disconnected", True)
    assert line["output"] < MOST / 2


async def test_a_client_that_takes_nothing_of_its_answer_loses_its_seat(tenants: Tenants) -> None:
    """And the engine stops to compute for it: else its seat would be given to others, and they would find it taken."""
    wide = {"n": 4, "temperature": 1, "logprobs": True, "top_logprobs": 20}
    with tenants.unread("red", {**ENDLESS, **wide, "stream": True}):
        await tenants.until(1, "running", "red")
        await tenants.until_idle("red")
        ended = next(line for line in reversed(tenants.logged()) if line["key"] == "red")
    line = await tenants.line(ended["id"])
    assert (line["ending"], line["estimated"]) == ("disconnected", False)
    assert 0 < line["output"] < 4 * MOST / 2


async def test_teams_share_the_engine_and_get_right_answers(tenants: Tenants) -> None:
    """Twelve requests for four adapters at once, where two can run."""
    async with tenants.async_client("red") as red, tenants.async_client("blue") as blue:
        clients = {"red": red, "blue": blue}
        asked = [(key, name, number) for number in range(3) for key, names in OWN.items() for name in names]
        replies = await asyncio.gather(
            *(clients[key].post(CHAT, json=chat_body(name, question(name, i)[0])) for key, name, i in asked)
        )
    answers = [(reply.json()["model"], answer_in(reply)) for reply in replies]
    assert answers == [(f"{name}@1", question(name, number)[1]) for _, name, number in asked]
    batches = [labels for labels, _ in tenants.samples("vllm:lora_requests_info")]
    assert {adapter for labels in batches for adapter in _adapters(labels)} >= {f"{name}@1" for _, name, _ in asked}
    assert all(len(_adapters(labels)) <= PLACES for labels in batches)


def _adapters(labels: dict[str, str]) -> set[str]:
    """What the engine ran or could have run in one of its steps, which it keeps for as long as it lives."""
    return {name for state in ("running", "waiting") for name in labels[f"{state}_lora_adapters"].split(",") if name}


async def test_what_can_wait_does(tenants: Tenants) -> None:
    answered: list[str] = []

    async def ask(client: httpx.AsyncClient, who: str, number: int, **more: str) -> None:
        body = {"model": BASE, "prompt": [1000 + number] * 20, "max_tokens": 8, "ignore_eos": True, **more}
        reply = await client.post("/v1/completions", json=body)
        assert reply.status_code == 200, reply.text
        answered.append(who)

    async with tenants.async_client("red") as red, tenants.async_client("blue") as blue:
        jobs = [asyncio.ensure_future(ask(red, "job", i, service_tier="flex")) for i in range(2 * SEATS)]
        await tenants.until(SEATS + 1, "waiting", "red")
        await asyncio.gather(*(ask(blue, "person", 100 + i) for i in range(4)), *jobs)
    last_person = max(number for number, who in enumerate(answered) if who == "person")
    assert answered[last_person:].count("job") >= SEATS / 2


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient, body: dict[str, object]
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[str]]]:
    """An answer as it comes, in lines."""
    async with client.stream("POST", CHAT, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200, await reply.aread()
        yield reply, reply.aiter_lines()


async def test_a_server_that_is_told_to_end_finishes_what_runs_and_turns_away_what_waits(tenants: Tenants) -> None:
    """The last that happens to this server; one client does not read what it has asked for."""
    filling = {**ENDLESS, "max_tokens": 60, "n": SEATS - 2, "temperature": 1}
    async with tenants.async_client("red") as red, tenants.async_client("blue") as blue:
        async with stream(red, filling) as (_, chunks), stream(red, {**ENDLESS, "max_tokens": 60}) as (_, others):
            await anext(chunks), await anext(others)
            waiting = asyncio.ensure_future(red.post(CHAT, json=ENDLESS))
            await tenants.until(1, "waiting", "red")
            tenants.server.process.send_signal(signal.SIGTERM)
            refused = await waiting
            assert (refused.status_code, error_of(refused)["code"]) == (503, "stopping")
            assert int(refused.headers["retry-after"]) > 0
            ends = [[line async for line in each if line][-1] for each in (chunks, others)]
    assert ends == ["data: [DONE]"] * 2
    assert await asyncio.to_thread(tenants.server.process.wait, 120) == 0
    written = tenants.lines()[-3:]
    assert sorted(line["ending"] for line in written) == ["answered", "answered", "failed"]
    assert {60, 60 * (SEATS - 2), 0} == {line["output"] for line in written}


async def test_no_secret_is_in_what_the_server_has_left_behind(tenants: Tenants) -> None:
    secrets = [secret.rpartition("_")[2] for secret in tenants.secrets.values()]
    folder = tenants.server.log.parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert {tenants.server.log, *tenants.usage.iterdir()} <= set(files)
    assert [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)] == []
    assert not any(secret in json.dumps([span.said for span in tenants.spans.spans]) for secret in secrets)


def test_the_audit_log_is_whole_and_says_who_did_what(tenants: Tenants) -> None:
    assert " 0 findings" in tenants.command("audit", "verify")
    entries = json.loads(tenants.command("audit", "list", "--json"))
    done = {(entry["action"], entry["subject"].get("name"), entry["by"]) for entry in entries}
    assert {("key.create", name, "setup") for name in TERMS} <= done
    if "fresh" not in tenants.secrets:  # the tests of what keys may do were left out
        return
    assert {(f"key.{what}", "fresh", getpass.getuser()) for what in ("create", "rotate", "revoke")} <= done
    assert {("tag", "red/date", "red"), ("tag", SHARED, "admin"), ("publish", "red/blended", "red")} <= done
