"""/v1/compose/jobs: what is taken and what is refused, where jobs stand, and what their streams tell."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from loraloom.adapters.base import BaseFingerprint, fingerprint
from loraloom.adapters.store import Store
from loraloom.compose import log
from loraloom.compose.jobs import Job
from loraloom.compose.trials import read_trial
from loraloom.server import jobs as queueing
from loraloom.server.aside import threads
from loraloom.server.base import ServedBase, ServedPair
from loraloom.server.gate.assembly import assemble
from loraloom.server.gate.gate import Gate
from loraloom.server.jobs import JobQueue
from loraloom.server.routes import compose as module
from loraloom.server.routes import followed_job
from loraloom.server.settings import Settings
from tests.adapters.small_adapters import small_adapter
from tests.server.conftest import BASE, SERVED, limits_of
from tests.server.fakes import FakeEngine
from tests.server.job_fakes import EXAMPLES, FakeRuns, damage, ends_as, found, let_go, made, trial, try_out
from tests.server.replies import told
from tests.server.routes.conftest import Serve
from tests.tiny_models import MakeAdapter

JOBS = "/v1/compose/jobs"
WANTED = {"name": "blend", "pool": ["a", "b@1"], "examples": EXAMPLES, "scorer": "server"}


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


@pytest.fixture
def composing(
    store: Store, engine: FakeEngine, runs: FakeRuns, tiny_base: Path, make_adapter: MakeAdapter, tmp_path: Path
) -> Gate:
    """A gate over a real base with the adapters a and b of it, whose jobs are processes that wait."""
    base = fingerprint(tiny_base)
    for seed, name in enumerate(("a", "b")):
        store.publish(make_adapter(name, seed=seed), name, base=base, base_name=BASE)
    settings = Settings(
        model=str(tiny_base),
        adapters=store.url,
        cache=tmp_path / "cache",
        jobs=tmp_path / "jobs",
        port=80,
        insecure=True,
    )
    served = ServedBase(BASE, base, store, str(tiny_base))
    gate = assemble(settings, store, engine, served, [BASE], limits_of(engine))
    return replace(
        gate, jobs=JobQueue(gate.jobs.jobs, runs, gate.keys.temporary, store.resolve, lambda _: None, most=2)
    )


@pytest.fixture
async def client(serve: Serve, composing: Gate, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(queueing, "LOOK", 0.02)
    monkeypatch.setattr(module, "LOOK", 0.02)
    task = asyncio.create_task(composing.jobs.run())
    yield serve(composing)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def begun(client: httpx.AsyncClient, gate: Gate, runs: FakeRuns) -> Job:
    """A job that is being run."""
    reply = await client.post(JOBS, json=WANTED)
    assert reply.status_code == 202, reply.text
    async with asyncio.timeout(60):
        while reply.json()["id"] not in runs.started:
            await asyncio.sleep(0.005)
    return gate.jobs.jobs.get(reply.json()["id"])


def told_by(stream: str) -> Iterator[tuple[str, str | None, Any]]:
    """The events of a stream: name, number, data."""
    for block in stream.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            yield fields["event"], fields.get("id"), json.loads(fields["data"])


async def test_a_job_waits_for_its_turn_and_runs(client: httpx.AsyncClient, composing: Gate, runs: FakeRuns) -> None:
    job = await begun(client, composing, runs)
    assert job.id.startswith("blend-")
    assert [member.adapter for member in job.pool.members] == ["a@1", "b@1"]
    second = (await client.post(JOBS, json={**WANTED, "name": "team/second"})).json()
    assert (second["status"], second["ahead"], second["name"]) == ("queued", 1, "team/second")
    listed = (await client.get(JOBS)).json()
    assert listed["object"] == "list"
    assert {each["id"]: each["status"] for each in listed["data"]} == {job.id: "running", second["id"]: "queued"}


async def test_what_it_becomes_here(client: httpx.AsyncClient, composing: Gate, tiny_base: Path) -> None:
    wanted = {
        **WANTED,
        "base": BASE,
        "threads": 4096,
        "server": {"url": "http://server", "concurrency": 3, "timeout": 7},
    }
    reply = await client.post(JOBS, json=wanted)
    assert reply.status_code == 202, reply.text
    spec = composing.jobs.jobs.get(reply.json()["id"]).spec
    assert (spec.base, spec.threads) == (str(tiny_base), threads())
    assert (spec.server.url, spec.server.concurrency) == ("http://server:80", 3)
    assert (spec.server.timeout, spec.server.patience) == (7, module.PATIENCE)
    assert spec.publish.rank == composing.selector.max_rank
    reply = await client.post(JOBS, json={**WANTED, "server": {"concurrency": 1000}})
    most = composing.jobs.jobs.get(reply.json()["id"]).spec.server.concurrency
    assert most == max(1, composing.settings.max_cpu_loras // 4)
    reply = await client.post(JOBS, json={**WANTED, "publish": {"rank": 3, "when": "never"}})
    assert composing.jobs.jobs.get(reply.json()["id"]).spec.publish.rank == 3


async def test_on_a_proxy_tuned_server_the_base_may_be_the_small_model(
    serve: Serve, composing: Gate, store: Store, tiny_base: Path
) -> None:
    """Whose adapters a and b then are."""
    small = ServedBase("small", fingerprint(tiny_base), store, str(tiny_base))
    pair = ServedPair(ServedBase(BASE, SERVED, store, "/models/large"), small, store)
    client = serve(replace(composing, base=pair))
    reply = await client.post(JOBS, json={**WANTED, "base": "small"})
    assert reply.status_code == 202, reply.text
    assert composing.jobs.jobs.get(reply.json()["id"]).spec.base == str(tiny_base)
    assert told(await client.post(JOBS, json={**WANTED, "base": "smaller"})) == (400, "invalid_body")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
async def test_as_curl_sends_it(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.post(JOBS, content=json.dumps(WANTED), headers=headers)).status_code == 202


async def test_a_web_page_must_say_that_it_is_json(client: httpx.AsyncClient) -> None:
    """Which it cannot without asking first, as it can send a form."""
    origin = {"origin": "https://example.org", "content-type": "text/plain"}
    reply = await client.post(JOBS, content=json.dumps(WANTED), headers=origin)
    assert told(reply) == (415, "wrong_content_type")
    assert (await client.post(JOBS, json=WANTED, headers={"origin": "https://example.org"})).status_code == 202


REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "a file of examples": ({"examples": "/etc/passwd"}, 400, "not_available"),
    "a held-out file": ({"holdout": "/etc/passwd"}, 400, "not_available"),
    "another base": ({"base": "/models/other"}, 400, "invalid_body"),
    "another server": ({"server": {"url": "http://169.254.169.254"}}, 400, "not_available"),
    "a request without an end": ({"server": {"timeout": 1e9}}, 400, "not_available"),
    "patience without an end": ({"server": {"patience": 3601}}, 400, "not_available"),
    "an unknown field": ({"optimiser": "CMA"}, 400, "invalid_job"),
    "an unknown optimizer": ({"optimizer": {"name": "Adam"}}, 400, "invalid_job"),
    "no examples": ({"examples": []}, 400, "invalid_examples"),
    "an unknown adapter": ({"pool": ["a", "nobody"]}, 404, "model_not_found"),
    "a pool of one": ({"pool": ["a"]}, 400, "invalid_pool"),
    "the base's name": ({"name": BASE}, 400, "invalid_body"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_is_refused_and_how(name: str, client: httpx.AsyncClient, composing: Gate) -> None:
    fields, status, code = REFUSALS[name]
    assert told(await client.post(JOBS, json={**WANTED, **fields})) == (status, code)
    assert composing.jobs.jobs.list() == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool": ["a"]}, "of the base {base}: there is something to combine from two on"),
        ({"pool": ["a", "alien"]}, "another base (theirs) than {base}"),
        ({"template": "chat"}, "the tokenizer of '{base}' has no chat template"),
        ({"pool": "tag:none"}, "the pool is empty: no adapter of the store is in 'tag:none'"),
    ],
)
async def test_a_refusal_names_no_folders_of_the_server(
    client: httpx.AsyncClient, store: Store, tiny_base: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    other = BaseFingerprint({"model.layers.0.self_attn.q_proj": (8, 8)}, None)
    store.publish(small_adapter(tmp_path / "alien"), "alien", base=other, base_name="/home/ada/theirs")
    text = (await client.post(JOBS, json={**WANTED, **fields})).json()["error"]["message"]
    assert message.format(base=tiny_base.name) in text
    assert not any(folder in text for folder in (str(tiny_base.parent), store.url, "/home/ada"))


async def test_a_list_of_jobs_reads_no_examples(
    client: httpx.AsyncClient, composing: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = made(composing.jobs.jobs, "team/blend")
    monkeypatch.setattr(Job, "spec", property(lambda _: pytest.fail("all of the description is kept")))
    assert [(each["id"], each["name"]) for each in (await client.get(JOBS)).json()["data"]] == [(job.id, "team/blend")]


async def test_more_values_than_can_be_parsed_in_passing(client: httpx.AsyncClient) -> None:
    content = b'{"examples": [' + b"[]," * 200_000 + b"[]]}"
    assert told(await client.post(JOBS, content=content)) == (413, "body_too_large")


@pytest.mark.parametrize("content", [b"", b"[]", b"name: blend"])
async def test_what_is_no_json_object(client: httpx.AsyncClient, content: bytes) -> None:
    assert told(await client.post(JOBS, content=content)) == (400, "invalid_body")


async def test_too_many(client: httpx.AsyncClient, composing: Gate, runs: FakeRuns) -> None:
    await begun(client, composing, runs)
    statuses = [(await client.post(JOBS, json=WANTED)).status_code for _ in range(3)]
    assert statuses == [202, 202, 503]
    reply = await client.post(JOBS, json=WANTED)
    assert told(reply) == (503, "too_many_jobs")
    assert reply.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/events"), ("GET", "/report"), ("POST", "/cancel"), ("POST", "/resume")],
)
@pytest.mark.parametrize("id", ["blend-1", "..", "%2e%2e"])
async def test_a_job_that_is_not_there(client: httpx.AsyncClient, method: str, path: str, id: str) -> None:
    reply = await client.request(method, f"{JOBS}/{id}{path}")
    assert reply.status_code in (404, 405)
    if id == "blend-1":
        assert told(reply) == (404, "job_not_found")


async def test_one_that_is_done(client: httpx.AsyncClient, composing: Gate) -> None:
    job = made(composing.jobs.jobs)
    assert told(await client.get(f"{JOBS}/{job.id}/report")) == (404, "job_not_found")
    assert (await client.get(f"{JOBS}/{job.id}")).json()["result"] is None
    try_out(job, 0, 1, 2)
    job.finish(found(job, published="blend@1"))
    (job.folder / "report.html").write_text("<h1>better</h1>")
    details = (await client.get(f"{JOBS}/{job.id}")).json()
    assert (details["status"], details["trials"], details["best"], details["reason"]) == ("done", 3, 0.5, "")
    assert (details["result"]["published"], details["result"]["verdict"]["name"]) == ("blend@1", "better")
    report = await client.get(f"{JOBS}/{job.id}/report")
    assert (report.text, report.headers["content-type"]) == ("<h1>better</h1>", "text/html; charset=utf-8")
    assert "sandbox" in report.headers["content-security-policy"]


async def test_a_damaged_job_does_not_hide_the_others(client: httpx.AsyncClient, composing: Gate) -> None:
    damaged, odd, good = (made(composing.jobs.jobs, name) for name in ("damaged", "odd", "good"))
    damage(damaged)
    described = json.loads((odd.folder / "job.json").read_text())
    (odd.folder / "job.json").write_text(json.dumps({**described, "spec": {"version": 99}}))
    listed = {each["id"]: (each["name"], each["status"]) for each in (await client.get(JOBS)).json()["data"]}
    assert listed == {damaged.id: ("damaged", "failed"), odd.id: ("", "created"), good.id: ("good", "created")}


async def test_cancelling_and_going_on(client: httpx.AsyncClient, composing: Gate, runs: FakeRuns) -> None:
    job = await begun(client, composing, runs)
    assert (await client.post(f"{JOBS}/{job.id}/cancel")).status_code == 200
    assert job.cancelled
    assert told(await client.post(f"{JOBS}/{job.id}/resume")) == (409, "job_busy")
    ends_as(job, "cancelled", "somebody wished it")
    let_go(job, 3)
    stream = await client.get(f"{JOBS}/{job.id}/events")
    assert list(told_by(stream.text))[-1][2]["status"] == "cancelled"
    resumed = await client.post(f"{JOBS}/{job.id}/resume")
    assert resumed.status_code == 202
    assert resumed.json()["status"] in ("queued", "running")
    async with asyncio.timeout(60):
        while runs.started != [job.id, job.id]:
            await asyncio.sleep(0.005)


async def test_a_stream_tells_everything_from_the_beginning(
    client: httpx.AsyncClient, composing: Gate, runs: FakeRuns
) -> None:
    job = await begun(client, composing, runs)
    try_out(job, 0, 1)
    stream = module._events(job, composing, 0)
    first = await anext(stream)
    try_out(job, 2)
    job.finish(found(job))
    let_go(job)
    events = list(told_by("".join([first, *[each async for each in stream]])))
    trials = [(number, data) for name, number, data in events if name == "trial"]
    assert trials == [(str(number + 1), json.loads(trial(number).line())) for number in range(3)]
    assert [data["status"] for name, _, data in events if name == "status"] == ["running", "done"]
    assert (events[-1][0], events[-1][2]["status"], events[-1][2]["trials"]) == ("end", "done", 3)
    rest = await client.get(f"{JOBS}/{job.id}/events", headers={"last-event-id": "1"})
    assert rest.headers["content-type"].startswith("text/event-stream")
    assert [number for name, number, _ in told_by(rest.text) if name == "trial"] == ["2", "3"]


async def test_a_stream_of_one_that_waits_says_so(client: httpx.AsyncClient, composing: Gate, runs: FakeRuns) -> None:
    await begun(client, composing, runs)
    second = composing.jobs.jobs.get((await client.post(JOBS, json=WANTED)).json()["id"])
    stream = module._events(second, composing, 0)
    first = await anext(stream)
    await client.post(f"{JOBS}/{second.id}/cancel")
    names = [(name, data["status"]) for name, _, data in told_by("".join([first, *[each async for each in stream]]))]
    assert names == [("status", "queued"), ("status", "cancelled"), ("end", "cancelled")]


async def test_a_stream_that_has_nothing_to_tell_says_that_it_is_there(
    client: httpx.AsyncClient, composing: Gate, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    stream = module._events(await begun(client, composing, runs), composing, 0)
    assert (await anext(stream)).startswith("event: status\n")
    assert [await anext(stream), await anext(stream)] == [": still there\n\n"] * 2


async def test_a_number_that_is_none(client: httpx.AsyncClient, composing: Gate) -> None:
    job = made(composing.jobs.jobs)
    reply = await client.get(f"{JOBS}/{job.id}/events", headers={"last-event-id": "abc"})
    assert told(reply) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("server", "expected"),
    [(("::1", 8000), "http://[::1]:8000"), (("10.0.0.1", 80), "http://10.0.0.1:80"), (None, "http://127.0.0.1:80")],
)
def test_the_servers_own_url(composing: Gate, server: tuple[str, int] | None, expected: str) -> None:
    from fastapi import Request

    request = Request({"type": "http", "server": server, "headers": [], "path": "/", "method": "POST"})
    assert module._url(request, composing) == expected


async def test_a_job_that_cannot_be_written_down(
    client: httpx.AsyncClient, composing: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, owner: str | None = None) -> Job:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(composing.jobs.jobs, "create", full)
    reply = await client.post(JOBS, json=WANTED)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "jobs_unwritable")
    assert "No space left on device" in reply.json()["error"]["message"]


async def test_a_foreign_page_cannot_cancel(client: httpx.AsyncClient) -> None:
    id = (await client.post(JOBS, json=WANTED)).json()["id"]
    for what in ("cancel", "resume"):
        reply = await client.post(f"{JOBS}/{id}/{what}", headers={"origin": "https://elsewhere"})
        assert reply.status_code == 415


async def test_events_of_a_damaged_log_come_to_an_end(
    client: httpx.AsyncClient, composing: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "GRACE", 0.05)
    job = composing.jobs.jobs.get((await client.post(JOBS, json=WANTED)).json()["id"])
    await client.post(f"{JOBS}/{job.id}/cancel")
    (job.folder / "trials.jsonl").write_text("{}\n")
    async with asyncio.timeout(60):
        reply = await client.get(f"{JOBS}/{job.id}/events")
    assert reply.text.rstrip().rpartition("event: ")[2].startswith("end\n")
    assert "is no trial" in reply.text


async def test_a_stream_reads_each_trial_once(
    client: httpx.AsyncClient, composing: Gate, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, read = await begun(client, composing, runs), []
    try_out(job, 0, 1)
    monkeypatch.setattr(log, "read_trial", lambda line: pytest.fail("all of the log is read"))
    monkeypatch.setattr(followed_job, "read_trial", lambda line: read.append(line) or read_trial(line))
    monkeypatch.setattr(module, "HEARTBEAT", 0.0)
    stream = module._events(job, composing, 0)
    parts = [await anext(stream) for _ in range(6)]
    assert parts.count(": still there\n\n") >= 3
    try_out(job, 2)
    parts += [await anext(stream) for _ in range(6)]
    assert [number for name, number, _ in told_by("".join(parts)) if name == "trial"] == ["1", "2", "3"]
    assert len(read) == 3
