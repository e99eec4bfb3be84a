"""Who gets the engine when many want it, what it does for those who leave, and how it comes to its end."""

import asyncio
import json
import re
import signal

import httpx
import pytest

from tests.bench.processes import standing_still
from tests.e2e.serving import BASE, chat_body, error_of
from tests.e2e.tenants import (
    CHAT,
    ENDLESS,
    MOST,
    OPERATOR,
    OWN,
    PLACES,
    SEATS,
    SHARED,
    TERMS,
    Tenants,
    answer_in,
    holding,
    question,
    stream,
)

pytestmark = pytest.mark.engine

STORY = chat_body(BASE, "Tell me a story.", **ENDLESS)


async def test_a_client_that_leaves_in_a_stream_frees_what_it_held(tenants: Tenants) -> None:
    async with tenants.async_client("red") as red, stream(red, STORY) as (reply, chunks):
        for _ in range(9):  # each event is followed by an empty line, and the first has no token
            await anext(chunks)
    await tenants.until_idle("red")
    line = await tenants.line(reply.headers["x-request-id"])
    assert (line["ending"], line["estimated"], line["key"]) == ("disconnected", False, "red")
    assert 2 <= line["output"] < MOST / 2
    assert line["prompt"] > 0


async def test_a_client_that_leaves_before_its_whole_answer_pays_an_estimate(tenants: Tenants) -> None:
    known = tenants.ids("red")
    async with tenants.async_client("red") as red:
        asked = asyncio.ensure_future(red.post(CHAT, json=STORY))
        await tenants.until_computing("red")
        asked.cancel()
        await asyncio.wait({asked})
    await tenants.until_idle("red")
    line = await tenants.line_besides(known, "red")
    assert (line["ending"], line["estimated"]) == ("disconnected", True)
    assert line["output"] < MOST / 2


async def test_a_client_that_takes_nothing_of_its_answer_loses_its_seat(tenants: Tenants) -> None:
    """And the engine stops to compute for it: else its seat would be given to others, and they would find it taken."""
    known, before = tenants.ids("red"), tenants.total("vllm:generation_tokens_total")
    wide = {"n": 4, "temperature": 1, "logprobs": True, "top_logprobs": 20}
    with tenants.unread("red", {**STORY, **wide, "stream": True}):
        await tenants.until_computing("red")
        await tenants.until_idle("red")
        line = await tenants.line_besides(known, "red")
    assert (line["ending"], line["estimated"]) == ("disconnected", False)
    assert line["output"] > 0
    assert tenants.total("vllm:generation_tokens_total") - before < line["output"] + MOST


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


PEOPLE = 4


async def test_what_can_wait_does(tenants: Tenants) -> None:
    """Before the people who come last there are only the jobs that get the seats beside theirs."""

    async def ask(client: httpx.AsyncClient, number: int, **more: str) -> str:
        body = {"model": BASE, "prompt": [1000 + number] * 20, "max_tokens": 8, "ignore_eos": True, **more}
        reply = await client.post("/v1/completions", json=body)
        assert reply.status_code == 200, reply.text
        return reply.headers["x-request-id"]

    async with tenants.async_client("red") as red, tenants.async_client("blue") as blue:
        async with holding(red, SEATS - 1):
            await tenants.until(1, "running", "red")
            owners = [red, blue] * SEATS
            jobs = [asyncio.ensure_future(ask(owner, i, service_tier="flex")) for i, owner in enumerate(owners)]
            await tenants.until(SEATS, "waiting", "red")
            await tenants.until(SEATS, "waiting", "blue")
            people = [asyncio.ensure_future(ask(red, 100 + i)) for i in range(PEOPLE)]
            await tenants.until(SEATS + PEOPLE, "waiting", "red")
        persons, others = await asyncio.gather(*people), await asyncio.gather(*jobs)
    answered = await tenants.in_order([*persons, *others])
    last_person = max(map(answered.index, persons))
    assert last_person < SEATS - 1


async def test_a_server_that_is_told_to_end_finishes_what_runs_and_turns_away_what_waits(tenants: Tenants) -> None:
    """The last that happens to this server. Its engine stands still until the other has been turned away."""
    filling = {**STORY, "max_tokens": 100, "n": SEATS - 2, "temperature": 1}
    single = {**STORY, "max_tokens": 100}
    engine = tenants.server.engine()
    async with (
        tenants.async_client("red") as red,
        stream(red, filling) as (_, chunks),
        stream(red, single) as (_, others),
    ):
        await asyncio.gather(anext(chunks), anext(others))
        with standing_still(engine):
            waiting = asyncio.ensure_future(red.post(CHAT, json=STORY))
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
    assert {100, 100 * (SEATS - 2), 0} == {line["output"] for line in written}
    assert "the engine has stopped" not in tenants.server.log.read_text()


def test_no_secret_is_in_what_the_server_has_left_behind(tenants: Tenants) -> None:
    """Neither one of those that the tests know, nor anything like one: jobs are lent keys that nobody else knows."""
    secrets = [secret.rpartition("_")[2] for secret in tenants.secrets.values()]
    like_one = re.compile(f"ll_[0-9a-z]{{12}}_[0-9A-Za-z]{{43}}|{'|'.join(secrets)}")
    folder = tenants.server.log.parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert {tenants.server.log, *tenants.usage.iterdir()} <= set(files)
    assert [path for path in files if like_one.search(path.read_text(errors="replace"))] == []
    assert not like_one.search(json.dumps([span.said for span in tenants.spans.spans]))


def test_the_audit_log_is_whole_and_says_who_did_what(tenants: Tenants) -> None:
    assert " 0 findings" in tenants.command("audit", "verify")
    entries = json.loads(tenants.command("audit", "list", "--json"))
    done = {(entry["action"], entry["subject"].get("name"), entry["by"]) for entry in entries}
    assert {("key.create", name, "setup") for name in TERMS} <= done
    if "fresh" not in tenants.secrets:  # the tests of what keys may do were left out
        return
    assert {(f"key.{what}", "fresh", OPERATOR) for what in ("create", "rotate", "revoke")} <= done
    assert {("tag", "red/date", "red"), ("tag", SHARED, "admin"), ("publish", "chef/blended", "chef")} <= done
