"""A keeper against a small server of adapters, which may have faults."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loraloom.adapters.manifest import WEIGHTS_FILE
from loraloom.demo.catalog import DemoAdapter
from tests.bench.soak_answers import Case, Standing, Verdict
from tests.bench.soak_clients import Journal, Soak
from tests.bench.soak_keepers import LIVE, REMEMBERED, Keeper

TASKS = ("date", "name", "sql", "words", "units")
CASES = {task: [Case(f"a {task}", task, task, {each: each for each in TASKS})] for task in TASKS}


class Adapters:
    """Answers as what the weights of an adapter say; a removed version is gone."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[int, str]] = {}
        self.tags: dict[str, int] = {}
        self.published = 0
        one = "/v1/adapters/{name:path}"
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/adapters", self.add, methods=["POST"]),
                Route(f"{one}/tags/{{tag}}", self.tag, methods=["PUT"]),
                Route(f"{one}/versions/{{version:int}}", self.remove, methods=["DELETE"]),
                Route(one, self.remove_all, methods=["DELETE"]),
            ]
        )

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        name, _, version = body["model"].partition("@")
        versions = self.versions.get(name, {})
        number = int(version) if version.isdigit() else self.tags[name] if version else max(versions, default=0)
        if number not in versions:
            return JSONResponse({"error": {"code": "model_not_found"}}, status_code=404)
        text = versions[number]
        if not body["stream"]:
            return JSONResponse({"choices": [{"message": {"content": text}}]})
        return Response(f'data: {{"choices": [{{"delta": {{"content": "{text}"}}}}]}}\n\ndata: [DONE]\n\n')

    async def add(self, request: Request) -> Response:
        async with request.form() as form:
            files = {file.filename: (await file.read()).decode() for file in form.getlist("files")}
            name = str(form["name"])
        self.published += 1
        self.versions.setdefault(name, {})[self.published] = files[WEIGHTS_FILE]
        return JSONResponse({"version": self.published}, status_code=201)

    async def tag(self, request: Request) -> Response:
        self.tags[request.path_params["name"]] = (await request.json())["version"]
        return JSONResponse({})

    async def remove(self, request: Request) -> Response:
        del self.versions[request.path_params["name"]][request.path_params["version"]]
        return JSONResponse({})

    async def remove_all(self, request: Request) -> Response:
        del self.versions[request.path_params["name"]]
        return JSONResponse({})


@dataclass(frozen=True)
class Rounds(Soak):
    """Goes on for so many rounds more of its only keeper, however long they take."""

    left: Iterator[int]

    @property
    def running(self) -> bool:
        return next(self.left, None) is not None


@pytest.fixture
def adapters(tmp_path: Path) -> list[DemoAdapter]:
    """Adapters whose weights are their names."""
    for task in TASKS:
        folder = tmp_path / task
        folder.mkdir()
        for file in ("adapter_config.json", WEIGHTS_FILE):
            (folder / file).write_text(task)
    return [DemoAdapter(task, tmp_path / task, "", ()) for task in TASKS]


@pytest.fixture
def kept(adapters: list[DemoAdapter]) -> Callable:
    async def keep(server: Adapters, rounds: int) -> Soak:
        transport = httpx.ASGITransport(app=server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
            soak = Rounds(client, CASES, {"date": Standing("date")}, Journal(), 0, iter(range(rounds - 1)))
            await Keeper(soak, "kept/one", adapters, pause=0).keep()
        return soak

    return keep


async def test_every_change_is_made_and_seen(kept: Callable) -> None:
    server = Adapters()
    soak = await kept(server, rounds=2 * LIVE + 2 * REMEMBERED)
    journal = soak.journal
    assert journal.faults == []
    assert journal.verdicts.keys() == {Verdict.RIGHT}
    changes = {"adapter added", "tag moved", "version removed", "name removed"}
    assert changes < journal.operations.keys()
    assert server.versions.keys() == {"kept/one"}
    assert len(server.versions["kept/one"]) == LIVE
    assert len(soak.directory) == 3 + LIVE + REMEMBERED


async def test_a_tag_that_does_not_move_is_found(kept: Callable) -> None:
    class Stuck(Adapters):
        async def tag(self, request: Request) -> Response:
            self.tags.setdefault(request.path_params["name"], (await request.json())["version"])
            return JSONResponse({})

    soak = await kept(Stuck(), rounds=2)
    assert soak.journal.verdicts[Verdict.WRONG_ADAPTER] + soak.journal.verdicts[Verdict.REFUSED] > 0


async def test_a_version_that_stays_after_its_removal_is_found(kept: Callable) -> None:
    class Keeping(Adapters):
        async def remove(self, request: Request) -> Response:
            return JSONResponse({})

    soak = await kept(Keeping(), rounds=LIVE + 1)
    assert soak.journal.verdicts[Verdict.NOT_REFUSED] > 0


async def test_a_change_that_is_refused_is_an_error(kept: Callable) -> None:
    class Refusing(Adapters):
        async def add(self, request: Request) -> Response:
            return JSONResponse({"error": {"code": "store_unavailable"}}, status_code=503)

    soak = await kept(Refusing(), rounds=1)
    assert soak.journal.errors > 0
    assert "was answered with 503" in soak.journal.faults[0]
