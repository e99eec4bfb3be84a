"""The gate as middleware of a small application, over a real store: what passes, what is refused, and how it ends."""

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from loraloom.adapters.errors import AdapterNotFound
from loraloom.adapters.names import parse
from loraloom.adapters.store import Store
from loraloom.server.errors import EngineUnavailable
from loraloom.server.gate.exchange import Exchange
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.privileges import FOREIGN_SELECTORS
from loraloom.server.observe.account import Account
from tests.server.conftest import BASE, CAPACITY, BuildGate, Publish
from tests.server.fakes import FakeEngine
from tests.server.gate.application import CHAT, Connection, Model, application, client_of, settled, until
from tests.server.replies import error_of

FORM = {"content-type": "multipart/form-data; boundary=x"}


def test_the_stages_are_one_list_in_this_order(gate: Gate) -> None:
    assert [getattr(stage, "__name__", "") for stage in gate.stages] == [
        "keep_account",
        "answer_errors",
        "report_a_dead_engine",
        "open_path",
        "authenticate",
        "drop_privileges",
        "keep_limits",
        "bound_the_body",
        "select",
        "admit",
        "lease",
    ]


async def test_nobody_comes_before_others(client: httpx.AsyncClient, model: Model) -> None:
    body = {"model": BASE, "messages": [], "priority": -1}
    reply = await client.post(CHAT, json=body, headers={"x-vllm-priority": "-1"})
    assert reply.status_code == 200
    ((_, headers, raw),) = model.seen
    assert "x-vllm-priority" not in headers
    assert "priority" not in json.loads(raw)


async def test_the_engine_gets_the_canonical_name(
    client: httpx.AsyncClient, model: Model, publish: Publish, engine: FakeEngine
) -> None:
    publish("sql")
    reply = await client.post(CHAT, json={"model": "sql", "messages": [], "seed": 2**63}, headers={"x-mine": "1"})
    assert (reply.status_code, reply.json()) == (200, {"model": "sql@1"})
    ((path, headers, raw),) = model.seen
    assert path == CHAT
    assert json.loads(raw) == {"model": "sql@1", "messages": [], "seed": 2**63}
    assert headers["content-length"] == str(len(raw))
    assert headers["x-mine"] == "1"
    assert engine.loads == ["sql@1"]


async def test_the_base_needs_no_place(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = await client.post(CHAT, json={"messages": []})
    assert reply.json() == {"model": BASE}
    assert engine.loads == []


async def test_a_body_in_chunks_gets_a_length(client: httpx.AsyncClient, model: Model) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"model":'
        yield b'"tiny"}'

    reply = await client.post(CHAT, content=chunks(), headers={"content-type": "application/json"})
    assert reply.status_code == 200
    ((_, headers, raw),) = model.seen
    assert "transfer-encoding" not in headers
    assert headers["content-length"] == str(len(raw))


async def test_what_selects_nothing_passes_as_it_is(client: httpx.AsyncClient, model: Model) -> None:
    assert (await client.get("/v1/models", params={"a": "1"})).text == "other"
    assert (await client.post("/v1/load_lora_adapter", content=b"not json")).text == "other"
    assert [raw for _, _, raw in model.seen] == [b"", b"not json"]


JSON = {"content-type": "application/json"}
REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "a closed path": ({"url": "/invocations", "json": {}}, 404, "path_closed"),
    "an encoded path": ({"url": "/v1/chat%2Fcompletions%00", "json": {}}, 404, "path_closed"),
    "another method": ({"method": "GET", "url": CHAT}, 405, "method_not_open"),
    "no type": ({"content": b"{}"}, 415, "wrong_content_type"),
    "a form": ({"data": {"model": "sql"}}, 415, "wrong_content_type"),
    "gzip": ({"json": {}, "headers": {"content-encoding": "gzip"}}, 415, "wrong_content_type"),
    "no JSON": ({"content": b"{", "headers": JSON}, 400, "invalid_body"),
    "a list": ({"json": []}, 400, "invalid_body"),
    "NaN": ({"content": b'{"n":NaN}', "headers": JSON}, 400, "invalid_body"),
    "beyond a double": (
        {"content": b'{"n":1e999}', "headers": JSON},
        400,
        "invalid_body",
    ),
    "a model of the wrong type": ({"json": {"model": 1}}, 400, "invalid_body"),
    "two selections": ({"json": {"model": "a", "adapter": "b"}}, 400, "invalid_body"),
    "bad grammar": ({"json": {"model": "../etc"}}, 400, "invalid_model"),
    "an unknown name": ({"json": {"model": "sqk"}}, 404, "model_not_found"),
    "an unknown version": ({"json": {"model": "sql@9"}}, 404, "model_not_found"),
    "a mixture with an unknown term": ({"json": {"model": "sql+date"}}, 404, "model_not_found"),
    "a mixture of too large weights": ({"json": {"model": "1e308*sql"}}, 400, "invalid_mixture"),
    "a mixture of one with too high a rank": ({"json": {"model": "1*large"}}, 400, "rank_too_high"),
    "a mixture by a method for publications": ({"json": {"model": "ties(density=1):sql"}}, 400, "not_available"),
    "LoRAX's mixtures in another form": ({"json": {"merged_adapters": {"ids": "sql"}}}, 400, "invalid_body"),
    "a proxy strength": ({"json": {"model": "sql~0.5"}}, 400, "not_available"),
    "in the background": ({"json": {"model": "sql", "background": True}}, 400, "not_available"),
    "too high a rank": ({"json": {"model": "large"}}, 400, "rank_too_high"),
    "a declared length over the limit": ({"json": {"prompt": "x" * 2000}}, 413, "body_too_large"),
    "2 GB": ({"json": {}, "headers": {"content-length": str(2**31)}}, 413, "body_too_large"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_is_refused_and_how(
    name: str, model: Model, build_gate: BuildGate, publish: Publish, engine: FakeEngine
) -> None:
    request, status, code = REFUSALS[name]
    publish("sql")
    publish("large", rank=17)
    async with client_of(application(model, build_gate(max_body_bytes=1024))) as client:
        reply = await client.request(**{"method": "POST", "url": CHAT, **request})
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)
    assert model.seen == []
    assert engine.loads == []


async def test_an_unknown_name_is_answered_with_the_nearest(client: httpx.AsyncClient, publish: Publish) -> None:
    publish("sql")
    error = error_of(await client.post(CHAT, json={"model": "sqk"}))
    assert "'sql'" in error["message"]
    assert error["param"] == "model"


@pytest.mark.parametrize("header", FOREIGN_SELECTORS)
@pytest.mark.parametrize("url", [CHAT, "/v1/messages"])
async def test_headers_that_select_behind_the_gate(
    client: httpx.AsyncClient, model: Model, header: bytes, url: str
) -> None:
    reply = await client.post(url, json={"model": BASE}, headers={header.decode().upper(): "sql"})
    assert (reply.status_code, error_of(reply)["code"]) == (400, "header_refused")
    assert model.seen == []


async def test_an_undeclared_length_over_the_limit(model: Model, build_gate: BuildGate) -> None:
    connection = Connection(application(model, build_gate(max_body_bytes=1024)))
    for _ in range(2):
        await connection.give(b" " * 600, more=True)
    await connection.ended()
    assert connection.sent[0]["status"] == 413
    assert model.seen == []


@pytest.mark.parametrize(("path", "status"), [("/v1/adapters", 200), ("/v1/unload_lora_adapter", 413)])
async def test_uploads_have_a_limit_of_their_own(model: Model, build_gate: BuildGate, path: str, status: int) -> None:
    app = application(model, build_gate(max_body_bytes=1024, max_upload_bytes=4096))
    async with client_of(app) as client:
        assert (await client.post(path, content=b"x" * 3000, headers=FORM)).status_code == status
        assert (await client.post(path, content=b"x" * 5000, headers=FORM)).status_code == 413


async def test_an_upload_is_counted_and_never_gathered(model: Model, build_gate: BuildGate) -> None:
    connection = Connection(application(model, build_gate(max_upload_bytes=4096)), "/v1/adapters", **FORM)
    for number in range(1, 5):
        await connection.give(b"x" * 1000, more=True)
        assert len(model.seen) == number
    await connection.give(b"x" * 1000, more=True)
    await connection.ended()
    assert connection.sent[0]["status"] == 413


async def test_preflights_are_answered_behind_the_gate(client: httpx.AsyncClient) -> None:
    headers = {"origin": "https://page", "access-control-request-method": "POST"}
    reply = await client.options(CHAT, headers=headers)
    assert reply.status_code == 200
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert (await client.options("/load", headers=headers)).status_code == 404


async def test_an_error_of_the_server_keeps_its_details_to_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await client.post(CHAT, json={"fail": True})
    assert (reply.status_code, error_of(reply)["code"]) == (500, "internal_error")
    assert "secret" not in reply.text
    assert "a secret of the server" in caplog.text


async def test_an_error_after_the_answer_has_begun_ends_the_connection(
    app: Starlette, model: Model, publish: Publish, gate: Gate
) -> None:
    """There is no second answer: whoever serves the application sees the error and closes."""
    publish("sql")
    connection = Connection(app)
    await connection.give({"model": "sql", "stream": True})
    model.parts.put_nowait("begun ")
    await until(lambda: connection.text == "begun ")
    model.parts.put_nowait("fail")
    with pytest.raises(RuntimeError, match="a secret"):
        await connection.ended()
    assert [message["type"] for message in connection.sent].count("http.response.start") == 1
    assert connection.text == "begun "
    assert gate.leases.in_flight("sql@1") == 0


@pytest.mark.parametrize("begun", [False, True], ids=["not begun", "begun"])
async def test_requests_that_wait_for_a_dead_engine_are_ended(
    app: Starlette, gate: Gate, model: Model, engine: FakeEngine, publish: Publish, begun: bool
) -> None:
    """With 503 where the answer has not begun; otherwise the connection ends."""
    publish("sql")
    engine.stuck.update(() if begun else {"sql@1"})
    connection = Connection(app)
    await connection.give({"model": "sql", "stream": True})
    await until(lambda: bool(model.seen) if begun else engine.loads == ["sql@1"])
    if begun:
        model.parts.put_nowait("begun ")
        await until(lambda: connection.text == "begun ")
    engine.dead = True
    assert gate.running.interrupt() == 1
    await asyncio.wait([connection.task], timeout=30)
    assert connection.sent[0]["status"] == (200 if begun else 503)
    assert isinstance(connection.task.exception(), EngineUnavailable if begun else type(None))
    assert gate.running.interrupt() == 0
    assert connection.task.cancelling() == 0
    engine.stuck.clear()
    engine.go.set()
    await settled()


async def test_a_dead_engine_is_told_at_once(client: httpx.AsyncClient, engine: FakeEngine, model: Model) -> None:
    engine.dead = True
    for url in (CHAT, "/v1/models", "/invocations"):
        reply = await client.post(url, json={"model": BASE})
        assert (reply.status_code, error_of(reply)["code"]) == (503, "engine_unavailable")
        assert int(reply.headers["retry-after"]) > 0
    assert model.seen == []


@pytest.mark.parametrize("end", [{"answer": 500}, {"fail": True}], ids=["it answers 500", "it raises"])
async def test_an_engine_that_dies_at_work_is_told_as_that(client: httpx.AsyncClient, end: dict[str, Any]) -> None:
    reply = await client.post(CHAT, json={"kill": True, **end})
    assert (reply.status_code, error_of(reply)["code"]) == (503, "engine_unavailable")
    assert int(reply.headers["retry-after"]) > 0


async def test_what_is_wrong_with_a_request_is_told_also_when_the_engine_dies(client: httpx.AsyncClient) -> None:
    assert (await client.post(CHAT, json={"kill": True, "answer": 400})).status_code == 400


async def test_a_refusal_is_no_matter_of_the_engine(gate: Gate, engine: FakeEngine) -> None:
    async def refuse(exchange: Exchange) -> None:
        engine.dead = True
        raise AdapterNotFound("sql")

    async def unused(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent")

    with pytest.raises(AdapterNotFound):
        await gate.report_a_dead_engine(Exchange({}, unused, unused, Account("r1")), refuse)


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_a_living_engines_errors_pass_as_they_are(client: httpx.AsyncClient, status: int) -> None:
    reply = await client.post(CHAT, json={"answer": status})
    assert (reply.status_code, reply.json()) == (status, {"model": BASE})


async def test_a_damaged_adapter_is_an_error_of_its_requests_only(
    client: httpx.AsyncClient, publish: Publish, store: Store, gate: Gate
) -> None:
    damaged, sound = publish("damaged"), publish("sound")
    with store.leased(damaged.digest) as folder:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    for _ in range(CAPACITY + 1):
        reply = await client.post(CHAT, json={"model": "damaged"})
        assert (reply.status_code, error_of(reply)["code"]) == (500, "adapter_damaged")
    assert (await client.post(CHAT, json={"model": "sound"})).json() == {"model": sound.canonical}
    assert gate.leases.in_flight("damaged@1") == 0


async def test_what_the_engine_cannot_load(client: httpx.AsyncClient, publish: Publish, engine: FakeEngine) -> None:
    publish("sql")
    engine.refused.add("sql@1")
    assert (await client.post(CHAT, json={"model": "sql"})).status_code == 500
    engine.refused.clear()
    assert (await client.post(CHAT, json={"model": "sql"})).status_code == 200


async def test_a_lease_is_held_until_a_stream_has_been_sent(
    app: Starlette, gate: Gate, model: Model, publish: Publish
) -> None:
    publish("sql")
    connection = Connection(app)
    await connection.give({"model": "sql", "stream": True})
    for part in ("one ", "two "):
        model.parts.put_nowait(part)
    await until(lambda: connection.text == "one two ")
    assert gate.leases.in_flight("sql@1") == 1
    model.parts.put_nowait(None)
    await connection.ended()
    assert gate.leases.in_flight("sql@1") == 0
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_lease_is_released_when_the_client_leaves_in_the_middle(
    app: Starlette, gate: Gate, model: Model, publish: Publish
) -> None:
    """The application hears of it, because after the rewritten body it listens to the real channel."""
    publish("sql")
    connection = Connection(app)
    await connection.give({"model": "sql", "stream": True})
    model.parts.put_nowait("one ")
    await until(lambda: connection.text == "one ")
    await connection.leave()
    await connection.ended()
    assert gate.leases.in_flight("sql@1") == 0
    assert connection.text == "one "


async def test_a_cancelled_request_releases_its_lease(
    app: Starlette, gate: Gate, model: Model, publish: Publish
) -> None:
    publish("sql")
    connection = Connection(app)
    await connection.give({"model": "sql", "stream": True})
    await until(lambda: gate.leases.in_flight("sql@1") == 1)
    connection.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connection.ended()
    assert gate.leases.in_flight("sql@1") == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/adapters", "/v1/unload_lora_adapter"])
async def test_a_client_that_leaves_before_its_body_has_arrived_gets_no_answer(
    app: Starlette, model: Model, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "vllm.loraloom.requests")
    connection = Connection(app, path)
    await connection.give(b'{"model":', more=True)
    await connection.leave()
    await connection.ended()
    assert connection.sent == []
    assert caplog.text == ""


async def test_who_waits_for_a_place_in_vain_may_come_again(
    app: Starlette,
    client: httpx.AsyncClient,
    gate: Gate,
    model: Model,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b", "c", "d"):
        publish(name)
    holding = [Connection(app) for _ in range(CAPACITY)]
    for name, connection in zip("abc", holding, strict=True):
        await connection.give({"model": name, "stream": True})
    await until(lambda: len(model.seen) == CAPACITY)
    monkeypatch.setattr(gate.leases, "_patience", 0.05)  # not before, as it bounds loading too
    reply = await client.post(CHAT, json={"model": "d"})
    assert (reply.status_code, error_of(reply)["code"]) == (503, "too_many_adapters")
    assert reply.headers["retry-after"] == "1"
    for connection in holding:
        await connection.leave()
        await connection.ended()


async def test_many_requests_for_more_adapters_than_there_is_room_for(
    client: httpx.AsyncClient, publish: Publish, engine: FakeEngine, gate: Gate
) -> None:
    names = [publish(f"adapter-{number}").name for number in range(2 * CAPACITY)]
    asked = [*names, BASE] * 8
    replies = await asyncio.gather(*(client.post(CHAT, json={"model": name}) for name in asked))
    assert [reply.json()["model"] for reply in replies] == [BASE if n == BASE else f"{n}@1" for n in asked]
    assert len(engine.held) == CAPACITY
    assert {name for name in names if gate.leases.in_flight(f"{name}@1")} == set()


async def test_an_answer_by_a_mixture_tells_how_it_came_out(
    model: Model, gate: Gate, publish: Publish, engine: FakeEngine
) -> None:
    for name in ("a", "b"):
        publish(name)
    async with client_of(application(model, gate)) as client:
        for asked, rank in (("0.5*a+b", "4"), ("svd(rank=1):a+b", "1")):
            replies = [await client.post(CHAT, json={"model": asked}) for _ in range(2)]
            for reply in replies:
                assert reply.json()["model"] == gate.selector.settle_own(parse(asked)).model
                assert reply.headers["loraloom-mixture-rank"] == rank
                assert (float(reply.headers["loraloom-mixture-error"]) > 0) == (rank == "1")
        for asked in ("a", "1*a", "0*a"):
            reply = await client.post(CHAT, json={"model": asked})
            assert "loraloom-mixture-rank" not in reply.headers
    assert engine.loads.count("1*b@1+0.5*a@1") == 1


async def test_a_mixture_that_cannot_be_built_takes_no_place(
    model: Model, gate: Gate, publish: Publish, engine: FakeEngine
) -> None:
    for name, rank in (("a", 2), ("b", 2), ("c", 2), ("d", 3)):
        publish(name, rank=rank)
    async with client_of(application(model, gate)) as client:
        for name in "abc":
            assert (await client.post(CHAT, json={"model": name})).status_code == 200
        reply = await client.post(CHAT, json={"model": "lorahub:a+d"})
        assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_mixture")
    assert engine.unloads == []
