"""What each key can see, do and ask for on the real engine, and that no key can tell what another one does."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

import httpx
import pytest
from anthropic import Anthropic
from anthropic import AuthenticationError as AnthropicRefused
from openai import AuthenticationError, NotFoundError, OpenAI, RateLimitError

from loraloom.adapters.store import Store
from tests.e2e.serving import BASE, chat_body, error_of, eventually
from tests.e2e.tenants import CHAT, DEMO, ENDLESS, OWN, SHARED, Tenants, answer_in, question

pytestmark = pytest.mark.engine

JOBS = "/v1/compose/jobs"
SQL = question(SHARED)
LONG = "The sea is blue, and the wind is kind today. " * 20
"""More than one block of the prefix cache, which has 128 tokens on a CPU."""


@pytest.fixture(scope="module", autouse=True)
def job(tenants: Tenants) -> str:
    """The path of a job that runs beside the tests, at what is left of the machine; the last of them waits for it."""
    examples = [{"prompt": prompt, "completion": answer} for prompt, answer in DEMO["date"].examples]
    body = {"name": "chef/blended", "pool": list(OWN["red"]), "scorer": "server", "publish": "always"}
    body |= {"examples": examples[:3], "holdout": examples[3:4], "optimizer": {"name": "RandomSearch", "budget": 4}}
    with tenants.client("chef") as chef:
        reply = chef.post(JOBS, json=body)
    assert reply.status_code == 202, reply.text
    return f"{JOBS}/{reply.json()['id']}"


Clients: TypeAlias = Callable[..., OpenAI]


@pytest.fixture
def openai(tenants: Tenants) -> Iterator[Clients]:
    """Makes OpenAI's client for a key; they are closed in the end."""
    with ExitStack() as clients:

        def client(secret: str, retries: int = 0) -> OpenAI:
            url = f"{tenants.server.url}/v1"
            return clients.enter_context(OpenAI(base_url=url, api_key=secret, max_retries=retries, timeout=300))

        yield client


def status(tenants: Tenants, secret: str) -> int:
    reply = httpx.get(f"{tenants.server.url}/v1/models", headers={"authorization": f"Bearer {secret}"}, timeout=60)
    return reply.status_code


async def test_without_a_key_nothing_is_open_but_the_probes(tenants: Tenants, openai: Clients) -> None:
    url = tenants.server.url
    for path in ("/health", "/ready"):
        assert httpx.get(f"{url}{path}", timeout=120).status_code == 200
    for path in ("/v1/models", "/metrics", "/version", "/v1/adapters", JOBS):
        reply = httpx.get(f"{url}{path}", timeout=120)
        assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"
        for headers in ({}, {"origin": "https://a.example", "access-control-request-method": "GET"}):
            reply = httpx.options(f"{url}{path}", headers=headers, timeout=120)
            assert reply.status_code in ((200, 400) if headers else (405,))  # vLLM says whether that page may ask
            assert "loraloom" not in reply.text
    with pytest.raises(AuthenticationError) as refused:
        openai("ll_000000000000_" + "x" * 43).models.list()
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")


def test_anthropics_client_sends_its_key_in_its_own_header(tenants: Tenants) -> None:
    wanted = {"model": "red/date", "max_tokens": 16, "messages": [{"role": "user", "content": question("red/date")[0]}]}
    with Anthropic(base_url=tenants.server.url, api_key=tenants.secrets["red"], max_retries=0) as ours:
        reply = ours.messages.create(**wanted, extra_body={"temperature": 0})  # type: ignore[call-overload]
    assert reply.content[0].text == question("red/date")[1]
    with (
        Anthropic(base_url=tenants.server.url, api_key="none", max_retries=0) as nobody,
        pytest.raises(AnthropicRefused),
    ):
        nobody.messages.create(**wanted)  # type: ignore[call-overload]


OPEN_TO = {
    ("GET", "/metrics"): {"prometheus", "admin"},
    ("GET", "/version"): {"blue", "red", "admin"},
    ("GET", "/v1/models"): {"blue", "red", "admin"},
    ("GET", f"/v1/adapters/{SHARED}"): {"blue", "red", "admin"},
    ("GET", JOBS): {"red", "admin"},
    ("PUT", "/v1/adapters/red/date/tags/used"): {"red", "admin"},
    ("PUT", f"/v1/adapters/{SHARED}/tags/used"): {"admin"},
}


@pytest.mark.parametrize("key", ["prometheus", "blue", "red", "admin"])
def test_each_role_opens_what_is_for_it(tenants: Tenants, key: str) -> None:
    with tenants.client(key) as client:
        replies = {what: client.request(*what, json={"version": 1}) for what in OPEN_TO}
    opened = {what for what, reply in replies.items() if reply.status_code == 200}
    assert opened == {what for what, keys in OPEN_TO.items() if key in keys}
    refusals = {(reply.status_code, error_of(reply)["code"]) for what, reply in replies.items() if what not in opened}
    assert refusals <= {(403, "insufficient_permissions")}


def test_a_list_of_models_has_what_the_key_may_use(tenants: Tenants, openai: Clients) -> None:
    def listed(key: str) -> set[str]:
        return {model.id for model in openai(tenants.secrets[key]).models.list()}

    assert listed("red") == {BASE, SHARED, *OWN["red"]}
    assert listed("blue") == {BASE, SHARED, *OWN["blue"]}
    assert listed("green") == {BASE}
    assert listed("admin") >= {BASE, SHARED, *OWN["red"], *OWN["blue"]}


@pytest.mark.parametrize("form", ["{}", "{}@1", "{}@sha256:{:.12}", "0.5*red/date+0.5*{}", "svd(rank=4):{}", "{}~0.5"])
def test_what_others_have_is_refused_as_what_nobody_has(tenants: Tenants, form: str) -> None:
    hidden, missing = "blue/home", "blue/hxyz"
    digest = Store.open(tenants.server.store).versions(hidden)[0].digest
    with tenants.client("red") as red:
        replies = [
            red.post(path, json={"model": form.format(name, digest), **body})
            for name in (hidden, missing)
            for path, body in ((CHAT, chat_body("", "Hello")), ("/tokenize", {"prompt": "Hello"}))
            for body in [{key: value for key, value in body.items() if key != "model"}]
        ]
    assert {(reply.status_code, error_of(reply)["code"]) for reply in replies} == {(404, "model_not_found")}
    texts = [reply.text for reply in replies]
    assert texts[:2] == [text.replace(missing, hidden) for text in texts[2:]]


def test_openais_client_gets_no_other_teams_adapter(tenants: Tenants, openai: Clients) -> None:
    red, blue = (openai(tenants.secrets[key]) for key in ("red", "blue"))
    prompt, answer = question("blue/home")
    wanted = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 32}
    assert blue.chat.completions.create(model="blue/home", **wanted).choices[0].message.content == answer  # type: ignore[call-overload]
    for ask in (red.chat.completions.create, red.responses.create):
        more = wanted if ask == red.chat.completions.create else {"input": prompt}
        with pytest.raises(NotFoundError):
            ask(model="blue/home", **more)  # type: ignore[operator]
    with tenants.client("red") as client:
        assert client.get("/v1/adapters/blue/home").status_code == 404
        assert client.delete("/v1/adapters/blue/home").status_code == 404
        assert client.get("/v1/models/blue/home").status_code == 404


async def test_the_server_follows_what_the_command_line_does_with_keys(tenants: Tenants) -> None:
    async def becomes(secret: str, code: int) -> None:
        async def there() -> bool:
            return status(tenants, secret) == code

        await eventually(there)

    first = tenants.command("keys", "create", "--name", "fresh", "--adapters", "public/*").strip()
    await becomes(first, 200)
    second = tenants.command("keys", "rotate", "fresh").strip()
    await becomes(second, 200)
    assert status(tenants, first) == 401
    tenants.command("keys", "revoke", "fresh")
    await becomes(second, 401)
    tenants.secrets.update(fresh=first, rotated=second)


@pytest.mark.parametrize("model", [SHARED, BASE])
def test_no_key_can_tell_by_the_cache_what_another_has_asked(tenants: Tenants, model: str) -> None:
    def cached(key: str, **more: object) -> int:
        with tenants.client(key) as client:
            body = {"model": model, "prompt": LONG, "max_tokens": 1, "temperature": 0, **more}
            usage = client.post("/v1/completions", json=body).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert [cached("red"), cached("red")] == [0, 128]
    assert cached("blue") == 0
    assert cached("blue", cache_salt="red") == 0
    assert tenants.total("loraloom_cached_tokens_total", key="blue", adapter=model) == 0


def test_requests_per_minute(tenants: Tenants, openai: Clients) -> None:
    secret = tenants.secrets["hasty"]
    hasty = openai(secret)
    with pytest.raises(RateLimitError) as refused:
        all(hasty.models.list() for _ in itertools.count())
    told = refused.value.response.headers
    assert (refused.value.code, told["retry-after"]) == ("rate_limit_exceeded", "1")
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("60", "0")
    assert BASE in {model.id for model in openai(secret, retries=5).models.list()}


def test_requests_at_a_time(tenants: Tenants, openai: Clients) -> None:
    with tenants.client("single") as single:
        body = chat_body(SHARED, SQL[0], stream=True, **ENDLESS)
        with single.stream("POST", CHAT, json=body) as running:
            lines = running.iter_lines()
            next(lines)
            reply = single.post(CHAT, json=chat_body(SHARED, SQL[0]))
            assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limit_exceeded")
            assert reply.headers["retry-after"] == "1"
    patient = openai(tenants.secrets["single"], retries=60)
    again = patient.chat.completions.create(**chat_body(SHARED, SQL[0], max_tokens=2))  # type: ignore[call-overload]
    assert again.usage.completion_tokens == 2


def test_tokens_per_minute(tenants: Tenants) -> None:
    """Ten of them come back in a second: it takes most of a minute until there are 590 again."""
    with tenants.client("frugal") as frugal:
        body = {"model": SHARED, "prompt": [1000] * 480, "max_tokens": 1}
        reply = frugal.post("/v1/completions", json=body)
        used = reply.json()["usage"]["total_tokens"]
        assert (used, reply.headers["x-ratelimit-limit-tokens"]) == (481, "600")
        never = frugal.post("/v1/completions", json={**body, "max_tokens": 121})
        later = frugal.post("/v1/completions", json={**body, "max_tokens": 110})
        assert {error_of(reply)["code"] for reply in (never, later)} == {"rate_limit_exceeded"}
        assert "retry-after" not in never.headers
        left = int(later.headers["x-ratelimit-remaining-tokens"])
        assert 600 - used <= left < 590
        assert 590 - left <= 10 * int(later.headers["retry-after"]) <= 600
        assert answer_in(frugal.post(CHAT, json=chat_body(SHARED, SQL[0], max_tokens=40))) == SQL[1]


def test_clients_cannot_tell_the_engine_how_to_treat_their_requests(tenants: Tenants) -> None:
    """vLLM refuses each of these values: what is answered has not reached it."""
    fields = {"priority": "first", "request_id": 1, "kv_transfer_params": 1, "cache_salt": ""}
    headers = {"x-vllm-priority": "first", "x-request-id": "mine"}
    with tenants.client("red") as red:
        reply = red.post(CHAT, json={**chat_body("red/date", question("red/date")[0]), **fields}, headers=headers)
    assert answer_in(reply) == question("red/date")[1]
    assert reply.json()["id"] == f"chatcmpl-{reply.headers['x-request-id']}"
    assert "mine" not in reply.text + str(reply.headers)


def test_a_job_works_for_its_key_and_is_its_keys_own(tenants: Tenants, job: str) -> None:
    """It asks the server with a key that is made for it, and others see neither it nor what it has published."""
    with tenants.client("chef") as chef:
        with chef.stream("GET", f"{job}/events") as stream:
            told = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data:")]
        assert told[-1]["status"] == "done", chef.get(job).text
        assert chef.get(job).json()["result"]["published"] == "chef/blended@1"
        assert [version["by"] for version in chef.get("/v1/adapters/chef/blended").json()["versions"]] == ["chef"]
    with tenants.client("red") as red:
        assert (red.get(job).status_code, red.post(f"{job}/cancel").status_code) == (404, 404)
        assert red.get(JOBS).json()["data"] == []
        hidden = red.post(CHAT, json=chat_body("chef/blended", "Hello"))
        assert (hidden.status_code, error_of(hidden)["code"]) == (404, "model_not_found")
    with tenants.client("blue") as blue:
        assert blue.get(job).status_code == 403
    spent = [line for line in tenants.lines() if "+" in line["model"]]
    assert {(line["key"], line["status"]) for line in spent} == {("chef", 200)}
