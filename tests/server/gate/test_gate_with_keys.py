"""What the gate does for keys: who comes in, how often, in which order, and what an answer tells them."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from loraloom.adapters.store import Store
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from loraloom.server.admission.admission import Admission
from loraloom.server.admission.rules import Rules
from loraloom.server.gate import body
from loraloom.server.gate.gate import Gate
from loraloom.server.observe.account import Account
from loraloom.server.observe.observer import Observer
from tests.server.conftest import BASE, BuildGate, Publish
from tests.server.fakes import FakeEngine
from tests.server.gate.application import CHAT, Connection, Model, application, client_of, settled, until

ASK = {"model": "team/x", "messages": []}
MakeKey = Callable[..., dict[str, str]]


@pytest.fixture
def key(store: Store, publish: Publish) -> MakeKey:
    """A callable `key(name, **terms) -> headers` of a new key; there is an adapter `team/x`, and `other/x`."""
    publish("team/x")
    publish("other/x")

    def make(name: str, **terms: Any) -> dict[str, str]:
        secret = KeyRing(store).create(name, Terms(**{"adapters": ("team/*",), **terms})).text
        return {"authorization": f"Bearer {secret}"}

    return make


def clients_of(gate: Gate, model: Model) -> httpx.AsyncClient:
    return client_of(application(model, gate))


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


async def test_without_a_key_nobody_comes_in_and_is_told_how(key: MakeKey, model: Model, build_gate: BuildGate) -> None:
    key("team")
    async with clients_of(build_gate(), model) as asking:
        reply = await asking.post(CHAT, json=ASK)
    assert code(reply) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in reply.json()["error"]["message"]
    assert model.seen == []


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_a_key_comes_in_by_either_header_and_goes_no_further(
    key: MakeKey, model: Model, build_gate: BuildGate, header: str
) -> None:
    secret = key("team")["authorization"].partition(" ")[2]
    sent = {header: f"Bearer {secret}" if header == "authorization" else secret}
    async with clients_of(build_gate(), model) as asking:
        reply = await asking.post(CHAT, json={**ASK, "cache_salt": "mine"}, headers=sent)
        assert code(await asking.post(CHAT, json={**ASK, "model": "other/x"}, headers=sent)) == (404, "model_not_found")
    assert reply.status_code == 200
    ((_, headers, raw),) = model.seen
    assert secret not in str(headers) + raw.decode()
    assert json.loads(raw)["cache_salt"] not in ("mine", None)


async def test_every_answer_has_an_id_of_ours_which_the_engine_gets_too(
    key: MakeKey, model: Model, build_gate: BuildGate
) -> None:
    headers = {**key("team"), "x-request-id": "chosen by the client"}
    async with clients_of(build_gate(), model) as asking:
        replies = [await asking.post(CHAT, json=ASK, headers=headers) for _ in range(2)]
        replies += [await asking.post(CHAT, json=ASK), await asking.get("/nowhere")]
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == 4
    assert [seen[1]["x-request-id"] for seen in model.seen] == ids[:2]


async def test_a_limit_is_told_before_and_after_it_is_reached(
    key: MakeKey, model: Model, build_gate: BuildGate
) -> None:
    headers = key("team", rpm=2)
    async with clients_of(build_gate(), model) as asking:
        first, second, third = [await asking.post(CHAT, json=ASK, headers=headers) for _ in range(3)]
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in (first, second, third)] == ["1", "0", "0"]
    assert code(third) == (429, "rate_limit_exceeded")
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert len(model.seen) == 2


async def test_who_is_over_the_limit_is_refused_before_the_body_is_read(
    key: MakeKey, model: Model, build_gate: BuildGate
) -> None:
    headers = key("team", rpm=1)
    app = application(model, build_gate())
    for status in (200, 429):
        connection = Connection(app, **headers)
        if status == 200:
            await connection.give(ASK)
        await connection.ended()
        assert connection.sent[0]["status"] == status


async def test_tokens_are_reserved_by_what_a_request_may_take(
    key: MakeKey, model: Model, build_gate: BuildGate
) -> None:
    headers = key("team", tpm=100)
    async with clients_of(build_gate(), model) as asking:
        reply = await asking.post(CHAT, json={**ASK, "max_tokens": 101}, headers=headers)
        assert code(reply) == (429, "rate_limit_exceeded")
        assert "retry-after" not in reply.headers
        assert "`max_tokens`" in reply.json()["error"]["message"]
        assert (await asking.post(CHAT, json={**ASK, "max_tokens": 50}, headers=headers)).status_code == 200


@pytest.fixture
def narrow(build_gate: BuildGate) -> Callable[..., Gate]:
    """A gate with one seat: whoever comes second waits."""

    def build(**rules: Any) -> Gate:
        return replace(build_gate(), admission=Admission(Rules(seats=1, adapters=1, **rules)))

    return build


async def one_behind_the_other(gate: Gate, model: Model, headers: dict[str, str]) -> tuple[Connection, Connection]:
    """A stream that has the only seat, and a request that waits for it."""
    app = application(model, gate)
    streaming, waiting = Connection(app, **headers), Connection(app, **headers)
    await streaming.give({**ASK, "stream": True})
    await until(lambda: len(model.seen) == 1)
    await waiting.give(ASK)
    await until(lambda: gate.admission.waiting() == {"team": 1})
    return streaming, waiting


async def test_requests_wait_for_their_turn_at_the_edge(
    key: MakeKey, model: Model, narrow: Callable[..., Gate]
) -> None:
    headers, gate = key("team"), narrow()
    streaming, waiting = await one_behind_the_other(gate, model, headers)
    assert len(model.seen) == 1
    model.parts.put_nowait(None)
    for connection in (streaming, waiting):
        await connection.ended()
        assert connection.sent[0]["status"] == 200
    assert gate.admission.running() == {}


async def test_who_leaves_while_it_waits_is_not_waited_for(
    key: MakeKey, model: Model, narrow: Callable[..., Gate]
) -> None:
    headers, gate = key("team"), narrow()
    streaming, waiting = await one_behind_the_other(gate, model, headers)
    await waiting.leave()
    await waiting.ended()
    assert (waiting.sent, gate.admission.waiting()) == ([], {})
    model.parts.put_nowait(None)
    await streaming.ended()
    assert len(model.seen) == 1


async def test_a_server_that_stops_turns_away_those_that_wait(
    key: MakeKey, model: Model, narrow: Callable[..., Gate]
) -> None:
    headers, gate = key("team"), narrow()
    streaming, waiting = await one_behind_the_other(gate, model, headers)
    gate.admission.close()
    await waiting.ended()
    assert waiting.sent[0]["status"] == 503
    assert (b"retry-after", b"10") in waiting.sent[0]["headers"]
    assert json.loads(waiting.text)["error"]["code"] == "stopping"
    model.parts.put_nowait(None)
    await streaming.ended()
    assert streaming.sent[0]["status"] == 200


async def test_a_body_that_does_not_come_is_not_waited_for(key: MakeKey, model: Model, build_gate: BuildGate) -> None:
    connection = Connection(application(model, build_gate(client_timeout=0.01)), **key("team"))
    await connection.give(b'{"model":', more=True)
    await connection.ended()
    assert connection.sent[0]["status"] == 408
    assert json.loads(connection.text)["error"]["code"] == "body_too_slow"


async def test_who_does_not_take_an_answer_holds_no_seat(key: MakeKey, model: Model, build_gate: BuildGate) -> None:
    gate = build_gate(client_timeout=0.01)
    connection = Connection(application(model, gate), **key("team"))
    connection.reads = False
    await connection.give(ASK)
    await connection.ended()
    assert gate.admission.running() == {}
    assert gate.leases.in_flight("team/x@1") == 0


async def test_the_slow_are_waited_for_as_long_as_something_comes(
    key: MakeKey, model: Model, build_gate: BuildGate
) -> None:
    """The end of the body starts no clock: an answer may take long."""
    connection = Connection(application(model, build_gate(client_timeout=0.05)), **key("team"))
    await connection.give({**ASK, "stream": True})
    await until(lambda: len(model.seen) == 1)
    await asyncio.sleep(0.1)
    model.parts.put_nowait("x")
    model.parts.put_nowait(None)
    await connection.ended()
    assert (connection.sent[0]["status"], connection.text) == (200, "x")


async def test_where_there_are_no_keys_everybody_is_one(model: Model, build_gate: BuildGate) -> None:
    gate = build_gate()
    async with clients_of(gate, model) as asking:
        assert (await asking.post(CHAT, json={"model": BASE, "messages": []})).status_code == 200
    await settled()
    assert gate.admission.running() == {}


async def test_what_is_damaged_is_told_with_what_to_ask_for_instead(
    key: MakeKey, model: Model, build_gate: BuildGate, publish: Publish, store: Store
) -> None:
    headers, second = key("team"), publish("team/x")
    path = store.folder(second.digest) / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    gate = build_gate()
    async with clients_of(gate, model) as asking:
        for _ in range(2):
            reply = await asking.post(CHAT, json=ASK, headers=headers)
            assert code(reply) == (500, "adapter_damaged")
            assert reply.headers["x-should-retry"] == "false"
            assert "Ask for 'team/x@1'" in reply.json()["error"]["message"]
            assert store.url not in reply.text
        assert (await asking.post(CHAT, json={**ASK, "model": "team/x@1"}, headers=headers)).status_code == 200
    assert list(gate.damage.blobs.quarantined) == [second.digest]


PAGE = {"origin": "https://evil.example", "host": "localhost"}
REBOUND = {"host": "evil.example"}


@pytest.mark.parametrize("headers", [PAGE, REBOUND])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_web_page_reaches_nothing_of_a_server_without_keys(
    model: Model, build_gate: BuildGate, headers: dict[str, str], method: str
) -> None:
    url = {"GET": "/v1/models", "POST": CHAT, "DELETE": "/v1/adapters/team/x"}[method]
    async with clients_of(build_gate(insecure=False), model) as asking:
        reply = await asking.request(method, url, headers=headers, json={"model": BASE})
        assert code(reply) == (403, "insufficient_permissions")
        own = {"host": "localhost:8000", "origin": "http://localhost:3000"}
        assert (await asking.post(CHAT, json={"model": BASE, "messages": []}, headers=own)).status_code == 200
    async with clients_of(build_gate(insecure=True), model) as asking:
        assert (await asking.post(CHAT, json={"model": BASE, "messages": []}, headers=headers)).status_code == 200


async def test_who_has_a_key_may_come_from_anywhere(key: MakeKey, model: Model, build_gate: BuildGate) -> None:
    sent = {**key("team"), "origin": "https://app.example", "host": "llm.example"}
    async with clients_of(build_gate(insecure=False), model) as asking:
        assert (await asking.post(CHAT, json=ASK, headers=sent)).status_code == 200


async def test_the_bodies_of_one_key_leave_memory_for_others(key: MakeKey, model: Model, build_gate: BuildGate) -> None:
    headers, others = key("team"), key("others")
    gate = build_gate(max_bodies_bytes=4096)
    async with clients_of(gate, model) as asking:
        reply = await asking.post(CHAT, json={**ASK, "user": "x" * 1024}, headers=headers)
        assert code(reply) == (503, "overloaded")
        assert (await asking.post(CHAT, json=ASK, headers=others)).status_code == 200
    assert gate.bodies.held == 0


@pytest.mark.parametrize("many", [{"n": 57}, {"n": "5_7"}, {"prompt": ["x"] * 57}, {"prompt": ["x"] * 19, "n": 3}])
async def test_a_request_cannot_have_more_seats_than_its_key(
    key: MakeKey, model: Model, build_gate: BuildGate, many: dict[str, Any]
) -> None:
    headers = key("team")
    async with clients_of(build_gate(), model) as asking:
        reply = await asking.post(CHAT, json={**ASK, **many}, headers=headers)
        assert code(reply) == (400, "invalid_body")
        assert "56" in reply.json()["error"]["message"]
        assert (await asking.post(CHAT, json={**ASK, "n": 56}, headers=headers)).status_code == 200
    assert len(model.seen) == 1


async def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(
    key: MakeKey, model: Model, build_gate: BuildGate
) -> None:
    headers = {**key("team"), "content-type": "application/json"}
    async with clients_of(build_gate(), model) as asking:
        for raw in (b'{"prompt":[' + b"1," * 250_000 + b"1]}", b'{"prompt":[' + b"[]," * 60_000 + b"[]]}"):
            reply = await asking.post(CHAT, content=raw, headers=headers)
            assert code(reply) == (413, "body_too_large")
        long = {"model": "team/x", "messages": [{"role": "user", "content": "a, b, " * 20_000}]}
        assert (await asking.post(CHAT, json=long, headers=headers)).status_code == 200


async def test_only_a_form_may_be_as_large_as_an_upload(key: MakeKey, model: Model, build_gate: BuildGate) -> None:
    headers = key("team", role="publish")
    async with clients_of(build_gate(max_body_bytes=1024), model) as asking:
        reply = await asking.post("/v1/adapters", json={"name": "team/y", "source": "x" * 2000}, headers=headers)
        assert code(reply) == (413, "body_too_large")
        files = {"adapter_config.json": b"x" * 2000}
        assert (await asking.post("/v1/adapters", files=files, headers=headers)).status_code == 200


async def test_counting_tokens_with_an_adapter_waits_for_its_turn_too(
    key: MakeKey, model: Model, narrow: Callable[..., Gate]
) -> None:
    """Or whoever counts slowly would keep adapters in memory that others need."""
    headers, gate = key("team"), narrow()
    app = application(model, gate)
    streaming, counting = Connection(app, **headers), Connection(app, "/tokenize", **headers)
    await streaming.give({**ASK, "stream": True})
    await until(lambda: len(model.seen) == 1)
    await counting.give({"model": "team/x", "prompt": "x"})
    await until(lambda: gate.admission.waiting() == {"team": 1})
    base = Connection(app, "/tokenize", **headers)
    await base.give({"model": BASE, "prompt": "x"})
    await base.ended()
    assert base.sent[0]["status"] == 200
    model.parts.put_nowait(None)
    await counting.ended()
    assert counting.sent[0]["status"] == 200
    await streaming.ended()


async def metrics(scope: Any, receive: Any, send: Any) -> None:
    """As Prometheus' own application, which looks at no method."""
    await PlainTextResponse("secrets of all keys")(scope, receive, send)


def with_metrics(gate: Gate, model: Model) -> httpx.AsyncClient:
    app = application(model, gate)
    mount = Mount("/metrics", metrics)
    mount.path_regex = re.compile("^/metrics(?P<path>.*)$")  # as vLLM has it
    app.router.routes.insert(0, mount)
    return client_of(app)


async def test_what_a_page_may_send_is_all_that_anybody_may_ask_without_a_key(
    key: MakeKey, model: Model, build_gate: BuildGate
) -> None:
    key("team")
    preflight = {"origin": "https://a.example", "access-control-request-method": "GET"}
    async with with_metrics(build_gate(), model) as asking:
        assert (await asking.options(CHAT, headers=preflight)).status_code == 200
        assert (await asking.get("/metrics/")).status_code == 404
        for path in (CHAT, "/metrics"):
            for headers in ({}, {"origin": "https://a.example"}, {"access-control-request-method": "GET"}):
                assert code(await asking.options(path, headers=headers)) == (405, "method_not_open")
            assert "secrets" not in (await asking.options(path, headers=preflight)).text
        assert (await asking.get("/metrics")).status_code == 401


async def test_metrics_tell_of_a_dead_engine(
    key: MakeKey, model: Model, build_gate: BuildGate, engine: FakeEngine
) -> None:
    monitor, team = key("prometheus", role="monitor"), key("team")
    async with with_metrics(build_gate(), model) as asking:
        engine.dead = True
        assert (await asking.get("/metrics", headers=monitor)).text == "secrets of all keys"
        assert (await asking.get("/metrics", headers=team)).status_code == 403
        assert (await asking.get("/v1/models", headers=team)).status_code == 503


@pytest.mark.parametrize(("path", "late"), [(CHAT, 0.0), (CHAT, 60.0), ("/v1/adapters", 0.0)])
async def test_a_key_that_is_over_by_the_end_of_a_slow_body_is_over(
    key: MakeKey,
    model: Model,
    build_gate: BuildGate,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    late: float,
) -> None:
    monkeypatch.setattr(body, "LATE", late)
    gate, headers = build_gate(), key("team", role="publish")
    connection = Connection(application(model, gate), path, **headers)
    await connection.give(b'{"model": "team/x",', more=True)
    KeyRing(store).revoke("team")
    gate.keys.look()
    await connection.give(b'"messages": []}')
    await connection.ended()
    assert connection.sent[0]["status"] == (200 if late else 401)


@pytest.mark.parametrize(("said", "beams"), [(True, True), ("yes", True), (False, False), ("false", False), (0, False)])
async def test_a_beam_search_is_what_the_engine_takes_for_one(
    model: Model, build_gate: BuildGate, said: object, beams: bool
) -> None:
    accounts: list[Account] = []
    gate = replace(build_gate(), observer=Noting(accounts))
    async with clients_of(gate, model) as asking:
        assert (
            await asking.post(CHAT, json={"messages": [], "max_tokens": 9, "use_beam_search": said})
        ).status_code == 200
    assert [account.beams for account in accounts] == [beams]


class Noting(Observer):
    """Notes the accounts that have ended."""

    def __init__(self, accounts: list[Account]) -> None:
        super().__init__()
        object.__setattr__(self, "accounts", accounts)

    def ended(self, account: Account) -> None:
        self.accounts.append(account)  # type: ignore[attr-defined]
