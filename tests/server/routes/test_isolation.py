"""Nothing crosses between keys: every opened path, walked with every role and every pair of tenants.

Each tenant has an adapter, a mixture in the cache and a job, and both see what is `public`. For every path there is a
list of ways to reach for what is somebody else's. Whoever adds a path has to say here how it could be abused.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from loraloom.adapters.base import fingerprint
from loraloom.adapters.names import parse_adapter
from loraloom.adapters.store import Store
from loraloom.server import jobs as queueing
from loraloom.server.access.access import Role
from loraloom.server.access.keyring import KeyRing
from loraloom.server.access.records import Terms
from loraloom.server.base import ServedBase
from loraloom.server.gate.assembly import assemble
from loraloom.server.gate.gate import Gate
from loraloom.server.gate.paths import OPEN, Route
from loraloom.server.jobs import JobQueue
from loraloom.server.settings import Settings
from tests.server.conftest import BASE, limits_of
from tests.server.fakes import FakeEngine
from tests.server.job_fakes import EXAMPLES, FakeRuns
from tests.server.routes.conftest import application
from tests.tiny_models import MakeAdapter

TENANTS = ("team-a", "team-b")
ROLES = (Role.MONITOR, Role.INFER, Role.PUBLISH)
"""Those that belong to a tenant; an administrator is nobody's."""
JOBS = "/v1/compose/jobs"


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        needs: the least role that may send it for what is its own.
    """

    method: str
    path: str
    json: Any = None
    files: Any = None
    data: Any = None
    needs: Role = Role.INFER

    def __str__(self) -> str:
        return f"{self.method} {self.path} {json.dumps(self.json or self.data)[:120]}"


@dataclass
class House:
    """A server with two tenants, an application that says what came through, and what each of them owns.

    Attributes:
        folder: an adapter.
        uploads: its files.
        reached: the models with which requests have come to the engine's server.
        keys: the secret of each tenant in each role, and of the administrator.
        jobs: the id of each tenant's job.
    """

    store: Store
    gate: Gate
    client: httpx.AsyncClient
    folder: Path
    uploads: dict[str, bytes]
    reached: list[str]
    keys: dict[tuple[str, Role], str] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)

    async def send(self, call: Call, key: str | None) -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        files = call.files and {name: (name, raw) for name, raw in call.files.items()}
        return await self.client.request(
            call.method, call.path, json=call.json, files=files, data=call.data, headers=headers
        )

    def digest(self, name: str) -> str:
        return self.store.resolve(parse_adapter(name)).digest

    def state(self) -> dict[str, Any]:
        names = self.store.names()
        return {name: (self.store.versions(name), self.store.tags(name)) for name in names}


def selections(house: House, owner: str, own: str) -> Iterator[dict[str, Any]]:
    """Every way to select what belongs to `owner`, for somebody whose own adapter is `own`."""
    name, digest = f"{owner}/x", house.digest(f"{owner}/x")
    texts = [name, f"{name}@1", f"{name}@latest", f"{name}@stable", f"{name}@sha256:{digest[:12]}", f"1*{name}"]
    texts += [f"0.5*{own}+0.5*{name}", f"{own}+-0.1*{name}@1", f"svd(rank=2):{own}+{name}", f"lorahub:{own}+{name}"]
    texts += [f"{own}+0*{name}", f"{name}~0.5", f"0.5*{name}+0.5*public/x"]
    for text in texts:
        yield {"model": text}
        yield {"adapter": text}
        yield {"adapter_id": text}
    yield {"adapter": {"name": name, "version": "stable"}}
    yield {"adapter": {"mix": {own: 0.5, f"{name}@1": 0.5}}}
    yield {"merged_adapters": {"ids": [own, name], "weights": [0.5, 0.5]}}


def selecting(path: str) -> Callable[[House, str, str], list[Call]]:
    def calls(house: House, owner: str, own: str) -> list[Call]:
        body = {"messages": [], "prompt": "x", "input": "x", "tokens": [1], "max_tokens": 1}
        return [Call("POST", path, {**body, **each}) for each in selections(house, owner, own)]

    return calls


def carding(house: House, owner: str, own: str) -> list[Call]:
    name, digest = f"{owner}/x", house.digest(f"{owner}/x")
    forms = (name, f"{name}@1", f"{name}@stable", f"{name}@sha256:{digest[:12]}", f"{name}~0.5")
    return [Call("GET", f"/v1/models/{form}") for form in forms]


def publishing(house: House, owner: str, own: str) -> list[Call]:
    calls = []
    for name in (f"{owner}/x", f"{owner}/new", "public/new", "new"):
        calls += [
            Call("POST", "/v1/adapters", files=house.uploads, data={"name": name}, needs=Role.PUBLISH),
            Call("POST", "/v1/adapters", {"name": name, "source": "s3://allowed/x"}, needs=Role.PUBLISH),
        ]
    return calls


def changing(house: House, owner: str, own: str) -> list[Call]:
    names = (f"{owner}/x", "public/x")
    changes = [("PUT", "/tags/stable", {"version": 1}), ("DELETE", "/versions/1", None), ("DELETE", "", None)]
    writes = [
        Call(method, f"/v1/adapters/{name}{end}", body, needs=Role.PUBLISH)
        for name in names
        for method, end, body in changes
    ]
    return [Call("GET", f"/v1/adapters/{owner}/x"), *writes]


def mixing(house: House, owner: str, own: str) -> list[Call]:
    calls = [
        Call("POST", "/v1/mixtures", {"adapter": each["adapter"]})
        for each in selections(house, owner, own)
        if "adapter" in each
    ]
    for name in (f"{owner}/blend", "public/blend"):
        calls.append(Call("POST", "/v1/mixtures", {"adapter": f"{own}+0.5*{own}", "name": name}, needs=Role.PUBLISH))
    calls.append(Call("POST", "/v1/mixtures", {"adapter": f"{own}+{owner}/x", "name": f"{own}2"}, needs=Role.PUBLISH))
    return calls


def composing(house: House, owner: str, own: str) -> list[Call]:
    spec = {"examples": EXAMPLES, "scorer": "server", "name": f"{own}2", "pool": [own, "public/x"]}
    specs = [
        {**spec, "pool": [own, f"{owner}/x"]},
        {**spec, "pool": [own, f"{owner}/x@1"]},
        {**spec, "name": f"{owner}/blend"},
        {**spec, "name": "public/blend"},
        {**spec, "examples": "/etc/passwd"},
        {**spec, "server": {"url": "http://169.254.169.254"}},
    ]
    return [Call("POST", JOBS, each, needs=Role.PUBLISH) for each in specs]


def of_a_job(path: str, method: str) -> Callable[[House, str, str], list[Call]]:
    def calls(house: House, owner: str, own: str) -> list[Call]:
        return [Call(method, path.format(id=house.jobs[owner]), {} if method == "POST" else None, needs=Role.PUBLISH)]

    return calls


def jobs_looked_at(house: House, owner: str, own: str) -> list[Call]:
    return [Call("GET", f"{JOBS}/{house.jobs[owner]}{end}", needs=Role.PUBLISH) for end in ("", "/events", "/report")]


def loading(house: House, owner: str, own: str) -> list[Call]:
    return [
        Call("POST", "/v1/load_lora_adapter", {"lora_name": f"{owner}/x", "lora_path": path}, needs=Role.PUBLISH)
        for path in ("s3://allowed/x", "/etc")
    ]


def unloading(house: House, owner: str, own: str) -> list[Call]:
    return [
        Call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, needs=Role.PUBLISH)
        for name in (f"{owner}/x", "public/x")
    ]


def nothing(house: House, owner: str, own: str) -> list[Call]:
    """There is nothing of anybody's to reach for."""
    return []


REACHING: dict[str, Callable[[House, str, str], Sequence[Call]]] = {
    **{route.pattern: selecting(route.pattern) for route in OPEN if route.selects},
    "/health": nothing,
    "/ready": nothing,
    "/version": nothing,
    "/metrics": nothing,
    "/v1/models": nothing,
    "/v1/models/{name}": carding,
    "/v1/adapters": publishing,
    "/v1/adapters/{name}": changing,
    "/v1/mixtures": mixing,
    "/v1/compose/jobs": composing,
    "/v1/compose/jobs/{id}": jobs_looked_at,
    "/v1/compose/jobs/{id}/cancel": of_a_job("/v1/compose/jobs/{id}/cancel", "POST"),
    "/v1/compose/jobs/{id}/resume": of_a_job("/v1/compose/jobs/{id}/resume", "POST"),
    "/v1/load_lora_adapter": loading,
    "/v1/unload_lora_adapter": unloading,
}
"""For each opened path, the ways to reach for what is somebody else's."""
REFUSED = {400, 403, 404}
"""400 is for what nobody may ask of this server, such as a file of its machine."""


def with_the_engines_paths(gate: Gate, reached: list[str]) -> FastAPI:
    """Our routes, and in place of the engine's server one that says which model came through."""
    app = application(gate)

    async def engine(request: Request) -> JSONResponse:
        model = json.loads(await request.body() or b"{}").get("model", "")
        reached.append(model)
        return JSONResponse({"model": model})

    for route in OPEN:
        if route.selects or route.pattern in ("/health", "/version", "/metrics"):
            app.add_api_route(route.pattern, engine, methods=sorted(route.methods))
    return app


@pytest.fixture
async def house(
    store: Store,
    engine: FakeEngine,
    tiny_base: Path,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    monkeypatch.setattr(queueing, "LOOK", 0.02)
    base = fingerprint(tiny_base)
    for seed, owner in enumerate((*TENANTS, "public")):
        folder = make_adapter(owner, seed=seed)
        store.publish(folder, f"{owner}/x", tag="stable", base=base, base_name=BASE)
    uploads = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".json", ".safetensors")}
    settings = Settings(
        model=str(tiny_base),
        adapters=store.url,
        cache=tmp_path / "cache",
        jobs=tmp_path / "jobs",
        allowed_sources=("s3://allowed/",),
        port=80,
    )
    keys = {
        (owner, role): KeyRing(store).create(f"{owner}-{role.word}", terms(owner, role), None).text
        for owner in TENANTS
        for role in ROLES
    }
    keys["root", Role.ADMIN] = KeyRing(store).create("root", terms("*", Role.ADMIN), None).text
    served = ServedBase(BASE, base, store, str(tiny_base))
    gate = assemble(settings, store, engine, served, [BASE], limits_of(engine))
    gate = replace(gate, jobs=JobQueue(gate.jobs.jobs, FakeRuns(), gate.keys.temporary, store.resolve, lambda _: None))
    reached: list[str] = []
    transport = httpx.ASGITransport(with_the_engines_paths(gate, reached), raise_app_exceptions=False)
    task = asyncio.create_task(gate.jobs.run())
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        made = House(store, gate, client, folder, uploads, reached, keys)
        for owner in TENANTS:
            spec = {"name": f"{owner}/blend", "pool": [f"{owner}/x", "public/x"], "examples": EXAMPLES}
            reply = await made.send(Call("POST", JOBS, {**spec, "scorer": "server"}), keys[owner, Role.PUBLISH])
            assert reply.status_code == 202, reply.text
            made.jobs[owner] = reply.json()["id"]
            mixture = Call("POST", "/v1/mixtures", {"adapter": f"0.5*{owner}/x+0.5*public/x"})
            assert (await made.send(mixture, keys[owner, Role.PUBLISH])).status_code == 200
        yield made
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def terms(owner: str, role: Role) -> Terms:
    if owner == "*":
        return Terms(role=role.word, adapters=("*",), publish=("*",))
    return Terms(role=role.word, adapters=(f"{owner}/*", "public/*"), publish=(f"{owner}/*",))


def test_every_opened_path_is_walked() -> None:
    assert set(REACHING) == {route.pattern for route in OPEN}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.word)
@pytest.mark.parametrize(("asking", "owner"), [TENANTS, TENANTS[::-1]], ids=TENANTS)
async def test_nobody_reaches_what_is_somebody_elses(house: House, asking: str, owner: str, role: Role) -> None:
    before = house.state()
    for calls in REACHING.values():
        for call in calls(house, owner, f"{asking}/x"):
            reply = await house.send(call, house.keys[asking, role])
            assert reply.status_code in REFUSED, f"{call}: {reply.status_code} {reply.text}"
            assert role >= call.needs or reply.status_code == 403, f"{call}: {reply.text}"
            assert "Did you mean" not in reply.text or owner not in reply.text.partition("Did you mean")[2]
    assert house.reached == []
    assert house.state() == before


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.word)
@pytest.mark.parametrize(("asking", "owner"), [TENANTS, TENANTS[::-1]], ids=TENANTS)
async def test_what_is_somebody_elses_reads_as_what_is_not_there(
    house: House, asking: str, owner: str, role: Role
) -> None:
    """Letter by letter, but for the name: no status, code or word tells that there is something."""
    for calls in REACHING.values():
        for call in calls(house, owner, f"{asking}/x"):
            unseen = await house.send(call, house.keys[asking, role])
            missing = await house.send(elsewhere(call, owner), house.keys[asking, role])
            assert (unseen.status_code, told(unseen, owner)) == (missing.status_code, told(missing, "team-z")), call


@pytest.mark.parametrize(("asking", "owner"), [TENANTS, TENANTS[::-1]], ids=TENANTS)
async def test_a_missing_name_of_ones_own_is_answered_with_names_that_are_seen(
    house: House, asking: str, owner: str
) -> None:
    """Where the nearest of all names would be somebody else's."""
    name, own = f"{asking}/merger", f"{asking}/x"
    house.store.publish(house.folder, f"{owner}/merger-with-acme")
    spec = {"examples": EXAMPLES, "scorer": "server", "name": f"{asking}/blend2", "pool": [own, name]}
    calls = [
        Call("GET", f"/v1/models/{name}"),
        Call("GET", f"/v1/adapters/{name}"),
        Call("PUT", f"/v1/adapters/{name}/tags/stable", {"version": 1}),
        Call("DELETE", f"/v1/adapters/{name}/versions/1"),
        Call("DELETE", f"/v1/adapters/{name}"),
        Call("POST", "/v1/unload_lora_adapter", {"lora_name": name}),
        Call("POST", "/v1/mixtures", {"adapter": f"{own}+{name}"}),
        Call("POST", "/v1/mixtures", {"adapter": f"{own}+{name}", "name": f"{asking}/y"}),
        Call("POST", JOBS, spec),
        Call("POST", "/v1/chat/completions", {"model": name, "messages": []}),
    ]
    for call in calls:
        reply = await house.send(call, house.keys[asking, Role.PUBLISH])
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found"), call
        assert owner not in reply.text, call


async def test_how_somebody_else_spells_a_name_is_not_told(house: House) -> None:
    house.store.publish(house.folder, "Team-A/sql")
    key, name = house.keys["team-a", Role.PUBLISH], "team-a/sql"
    spec = {"examples": EXAMPLES, "scorer": "server", "name": name, "pool": ["team-a/x", "public/x"]}
    calls = [
        Call("POST", "/v1/adapters", files=house.uploads, data={"name": name}),
        Call("POST", "/v1/mixtures", {"adapter": "team-a/x+public/x", "name": name}),
        Call("POST", JOBS, spec),
    ]
    for call in calls:
        reply = await house.send(call, key)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "name_taken"), call
        assert "Team-A" not in reply.text, call


def elsewhere(call: Call, owner: str) -> Call:
    """The same for a tenant that does not exist."""

    def moved(value: Any) -> Any:
        return None if value is None else json.loads(json.dumps(value).replace(owner, "team-z"))

    return replace(call, path=call.path.replace(owner, "team-z"), json=moved(call.json), data=moved(call.data))


def told(reply: httpx.Response, owner: str) -> str:
    return reply.text.replace(owner, "OWNER").partition(" Did you mean")[0]


@pytest.mark.usefixtures("offline_here")
@pytest.mark.parametrize("owner", TENANTS)
async def test_everybody_reaches_what_is_their_own_and_what_is_for_all(house: House, owner: str) -> None:
    """Or the tests above would hold for a server that is closed."""
    key = house.keys[owner, Role.PUBLISH]
    for route in OPEN:
        if route.selects:
            for model in (f"{owner}/x", "public/x", f"0.5*{owner}/x+0.5*public/x@1", BASE):
                reply = await house.send(Call("POST", route.pattern, {"model": model, "prompt": "x"}), key)
                assert reply.status_code == 200, reply.text
    calls = [
        Call("GET", f"/v1/models/{owner}/x"),
        Call("GET", f"/v1/adapters/{owner}/x"),
        Call("POST", "/v1/adapters", files=house.uploads, data={"name": f"{owner}/y"}),
        Call("PUT", f"/v1/adapters/{owner}/y/tags/stable", {"version": 1}),
        Call("POST", "/v1/mixtures", {"adapter": f"{owner}/x+public/x", "name": f"{owner}/z"}),
        Call("DELETE", f"/v1/adapters/{owner}/z"),
        Call("GET", f"{JOBS}/{house.jobs[owner]}"),
        Call("POST", f"{JOBS}/{house.jobs[owner]}/cancel", {}),
    ]
    for call in calls:
        reply = await house.send(call, key)
        assert reply.status_code in (200, 201), f"{call}: {reply.text}"


@pytest.mark.parametrize("role", [Role.INFER, Role.PUBLISH], ids=lambda role: role.word)
@pytest.mark.parametrize(("asking", "owner"), [TENANTS, TENANTS[::-1]], ids=TENANTS)
async def test_lists_show_what_is_seen(house: House, asking: str, owner: str, role: Role) -> None:
    for path in ("/v1/models", "/v1/adapters", *([JOBS] if role >= Role.PUBLISH else [])):
        reply = await house.send(Call("GET", path), house.keys[asking, role])
        assert reply.status_code == 200
        assert owner not in reply.text, path
        assert asking in reply.text, path


async def test_a_key_that_may_do_less_than_before_cannot_go_on_with_what_it_made(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "GRACE", 0.05)
    key, id = house.keys["team-a", Role.PUBLISH], house.jobs["team-a"]
    await house.send(Call("POST", f"{JOBS}/{id}/cancel", {}), key)
    async with asyncio.timeout(60):
        while (await house.send(Call("GET", f"{JOBS}/{id}"), key)).json()["status"] in ("queued", "running"):
            await asyncio.sleep(0.01)
    ring = KeyRing(house.store)
    for changed, status in (({"publish": ("elsewhere/*",)}, 403), ({"adapters": ("team-a/*",)}, 404)):
        ring.update("team-a-publish", lambda terms, changed=changed: replace(terms, **changed))
        house.gate.keys.look()
        reply = await house.send(Call("POST", f"{JOBS}/{id}/resume", {}), key)
        assert reply.status_code == status, reply.text
        ring.update("team-a-publish", lambda _: terms("team-a", Role.PUBLISH))
        house.gate.keys.look()
    assert (await house.send(Call("POST", f"{JOBS}/{id}/resume", {}), key)).status_code == 202


async def test_a_key_that_gets_the_name_of_another_gets_nothing_of_it(house: House) -> None:
    ring = KeyRing(house.store, clock=lambda: time.time() + 60)
    ring.revoke("team-a-publish")
    key = ring.create("team-a-publish", terms("team-a", Role.PUBLISH)).text
    house.gate.keys.look()
    assert (await house.send(Call("GET", JOBS), key)).json()["data"] == []
    assert (await house.send(Call("GET", f"{JOBS}/{house.jobs['team-a']}"), key)).status_code == 404


async def test_an_administrator_reaches_everything(house: House) -> None:
    key = house.keys["root", Role.ADMIN]
    for path in ("/v1/models", "/v1/adapters", JOBS):
        reply = await house.send(Call("GET", path), key)
        assert all(owner in reply.text for owner in TENANTS), path
    for owner in TENANTS:
        assert (await house.send(Call("GET", f"{JOBS}/{house.jobs[owner]}"), key)).status_code == 200
        assert (await house.send(Call("DELETE", f"/v1/adapters/{owner}/x"), key)).status_code == 200


async def test_every_role_gets_the_paths_that_are_open_to_it(house: House) -> None:
    """And nobody any without a key, or with one that is none, but for the probes."""
    for route, method in [(each, method) for each in OPEN for method in sorted(each.methods - {"HEAD"})]:
        path, needed = route.pattern.replace("{name}", "public/x").replace("{id}", "none"), route.role(method)
        for key in (None, "ll_000000000000_" + "x" * 43, "none"):
            reply = await house.send(Call(method, path), key)
            assert (reply.status_code == 401) == (needed is not None), f"{method} {path}: {reply.text}"
        for role in (*ROLES, Role.ADMIN):
            owner = "root" if role is Role.ADMIN else "team-a"
            reply = await house.send(Call(method, path), house.keys[owner, role])
            assert_fits(reply, role, needed, method, route)


def assert_fits(reply: httpx.Response, role: Role, needed: Role | None, method: str, route: Route) -> None:
    """The answer to a role is what the path's own role says."""
    what = f"{method} {route.pattern} as {role.word}: {reply.text}"
    assert reply.status_code != 401, what
    if needed is not None and not (role >= needed and (role is not Role.MONITOR or needed is Role.MONITOR)):
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_permissions"), what
    elif method == "GET" and "{" not in route.pattern:
        expected = 403 if needed is Role.MONITOR and role not in (Role.MONITOR, Role.ADMIN) else 200
        assert reply.status_code == expected, what
