"""/v1/models: what a client can put into `model`, and nothing that would be refused."""

import shutil
from typing import Any

import httpx
import openai
import pytest

from loraloom.adapters.base import BaseFingerprint
from loraloom.adapters.store import Store
from loraloom.server.base import ServedPair
from loraloom.server.gate.gate import Gate
from tests.server.conftest import BASE, SERVED, SMALL_BASE, BuildGate, Publish
from tests.server.replies import told
from tests.server.routes.conftest import Serve, damage_tag

OTHER_BASE = BaseFingerprint(SERVED.modules, tokenizer="f" * 64)
TOO_HIGH = 17


async def names(client: httpx.AsyncClient) -> list[str]:
    return [model["id"] for model in (await client.get("/v1/models")).json()["data"]]


async def test_the_base_comes_first(client: httpx.AsyncClient) -> None:
    (base,) = (await client.get("/v1/models")).json()["data"]
    assert base["id"] == BASE
    assert base["object"] == "model"
    assert base["max_model_len"] == 2048
    assert base["parent"] is None


async def test_every_adapter_with_the_version_that_its_name_stands_for(
    client: httpx.AsyncClient, publish: Publish
) -> None:
    for _ in range(2):
        publish("sql")
    publish("org/date", base=None)
    _, date, sql = (await client.get("/v1/models")).json()["data"]
    assert (sql["id"], sql["root"], sql["parent"]) == ("sql", "sql@2", BASE)
    assert (date["id"], date["root"], date["parent"]) == ("org/date", "org/date@1", BASE)
    assert sql["created"] > 1_700_000_000


async def test_what_would_be_refused_is_not_listed(client: httpx.AsyncClient, publish: Publish, store: Store) -> None:
    publish("fits")
    publish("foreign", base=OTHER_BASE)
    publish("large", rank=TOO_HIGH)
    damaged = publish("damaged", base=None)
    with store.leased(damaged.digest) as folder:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    assert await names(client) == [BASE, "fits"]


async def test_a_removed_adapter_is_not_listed(client: httpx.AsyncClient, publish: Publish, store: Store) -> None:
    publish("sql")
    store.remove("sql")
    assert await names(client) == [BASE]


@pytest.mark.parametrize("version", ["", "@1", "@latest", "@stable", "@sha256:{digest}"])
async def test_any_version_can_be_looked_up(client: httpx.AsyncClient, publish: Publish, version: str) -> None:
    record = publish("org/sql", tag="stable")
    name = "org/sql" + version.format(digest=record.digest[:12])
    found = (await client.get(f"/v1/models/{name}")).json()
    assert (found["id"], found["root"], found["parent"]) == (name, "org/sql@1", BASE)


async def test_the_base_can_be_looked_up(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/v1/models/{BASE}")).json()["id"] == BASE


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("sqk", 404, "model_not_found"),
        ("sql@9", 404, "model_not_found"),
        ("a b", 400, "invalid_model"),
        ("sql+date", 400, "invalid_model"),
        ("foreign", 400, "base_mismatch"),
        ("large", 400, "rank_too_high"),
        ("sql~nonsense", 400, "invalid_model"),
        ("sql~", 400, "invalid_model"),
        ("sql+sql~0.5", 400, "invalid_model"),
        ("sql~0.5", 400, "not_available"),
        (f"{BASE}~0.5", 400, "not_available"),
        ("sqk~0.5", 404, "model_not_found"),
    ],
)
async def test_what_cannot_be_looked_up(
    client: httpx.AsyncClient, publish: Publish, name: str, status: int, code: str
) -> None:
    publish("sql")
    publish("foreign", base=OTHER_BASE)
    publish("large", rank=TOO_HIGH)
    assert told(await client.get(f"/v1/models/{name}")) == (status, code)


async def test_openais_client_understands_it(serve: Serve, gate: Gate, publish: Publish) -> None:
    publish("org/sql")
    http: Any = serve(gate)
    client = openai.AsyncOpenAI(base_url="http://server/v1", api_key="unused", http_client=http)
    assert [model.id async for model in client.models.list()] == [BASE, "org/sql"]
    assert (await client.models.retrieve("org/sql@1")).id == "org/sql@1"
    with pytest.raises(openai.NotFoundError) as refusal:
        await client.models.retrieve("org/sqk")
    assert refusal.value.code == "model_not_found"
    assert refusal.value.param == "model"


async def test_a_proxy_tuned_server_tells_how_each_adapter_acts(
    serve: Serve, pair_gate: Gate, publish: Publish, publish_small: Publish
) -> None:
    publish("direct")
    publish_small("steering")
    publish("strange", base=None, width=6)
    client = serve(pair_gate)
    base, *cards = (await client.get("/v1/models")).json()["data"]
    assert (base["id"], base["applied"], base["alpha"]) == (BASE, None, None)
    told_of = [[card[key] for key in ("id", "root", "parent", "applied", "alpha")] for card in cards]
    assert told_of == [
        ["direct", "direct@1", BASE, "directly", None],
        ["steering", "steering@1~1", SMALL_BASE, "proxy", 1.0],
    ]
    assert (await client.get("/v1/models/steering@1")).json()["root"] == "steering@1~1"


async def test_another_server_does_not(client: httpx.AsyncClient, publish: Publish) -> None:
    publish("sql")
    card = (await client.get("/v1/models/sql")).json()
    assert (card["applied"], card["alpha"]) == (None, None)


async def test_what_an_answer_says_can_be_looked_up(serve: Serve, pair_gate: Gate, publish_small: Publish) -> None:
    publish_small("steering")
    found = (await serve(pair_gate).get("/v1/models/steering@1~0.5")).json()
    assert (found["id"], found["applied"]) == ("steering@1~0.5", "proxy")
    assert (found["root"], found["alpha"]) == ("steering@1~0.5", 0.5)


@pytest.mark.parametrize("name", ["steering~99", "direct~0.5", f"{BASE}~0.5"])
async def test_a_strength_that_a_request_could_not_have(
    serve: Serve, pair_gate: Gate, publish: Publish, publish_small: Publish, name: str
) -> None:
    publish("direct")
    publish_small("steering")
    assert told(await serve(pair_gate).get(f"/v1/models/{name}")) == (400, "invalid_alpha")


async def test_the_base_has_a_strength_where_its_expert_is_tuned(
    serve: Serve, build_gate: BuildGate, served_pair: ServedPair
) -> None:
    small = served_pair.small.model
    client = serve(build_gate(served_pair, proxy_small=small, proxy_expert=small))
    card = (await client.get(f"/v1/models/{BASE}~0.5")).json()
    assert (card["id"], card["alpha"], card["max_model_len"]) == (f"{BASE}~0.5", 0.5, 2048)


async def test_one_with_a_damaged_record_hides_itself_only(
    client: httpx.AsyncClient, publish: Publish, store: Store
) -> None:
    publish("date")
    publish("sql")
    damage_tag(store, "sql")
    assert await names(client) == [BASE, "date"]
    assert told(await client.get("/v1/models/sql")) == (500, "record_damaged")
