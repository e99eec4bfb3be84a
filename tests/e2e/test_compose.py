"""Compositions on the real engine: scored as torch scores them, and learned by jobs that are posted to the server."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from loraloom.adapters.names import parse_adapter
from loraloom.adapters.store import Store
from loraloom.compose.errors import InvalidPool
from loraloom.compose.scorers.server_scorer import WAITS, ServerScorer
from loraloom.compose.scorers.torch_scorer import TorchScorer, load_model
from loraloom.compose.scoring import Row, RowScore
from loraloom.compose.spec import Server as Where
from loraloom.demo.catalog import demo_adapters
from tests.e2e.serving import BASE, Server, chat_body, error_of, eventually
from tests.e2e.tenants import PATIENCE, holding
from tests.e2e.test_faults import inside

pytestmark = pytest.mark.engine

JOBS = "/v1/compose/jobs"
BATCH = 16
"""Sequences that the engine computes at a time."""
DEMO = {adapter.name: adapter for adapter in demo_adapters()}
POOL = ("date@1", "words@1")
POPULATION = [(0.0, 0.0), (1.0, 0.0), (0.5, -0.3)]
EXAMPLES = [{"prompt": prompt, "completion": answer} for prompt, answer in DEMO["date"].examples]


@pytest.fixture(scope="module")
def model(demo_model: Path) -> Any:
    return load_model(demo_model)


@pytest.fixture(scope="module")
def rows(demo_model: Path) -> list[Row]:
    """Two questions with their right answers, one with a wrong one."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(demo_model)

    def row(prompt: str, answer: str) -> Row:
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, answer)]
        return Row(tuple(ids[0]), (*ids[1], tokenizer.eos_token_id))

    right = [row(*DEMO[name].examples[0]) for name in ("date", "words")]
    return [*right, row(DEMO["date"].examples[1][0], "I do not know.")]


@pytest.fixture
def pool(filled_store: Path) -> Iterator[list[Path]]:
    """The pool's normal forms."""
    store = Store.open(filled_store)
    with ExitStack() as held:
        yield [held.enter_context(store.leased(store.resolve(parse_adapter(name)).digest)) for name in POOL]


@contextmanager
def remote(server: Server, pool: Sequence[str], method: str = "exact") -> Iterator[ServerScorer]:
    with closing(ServerScorer(Where(url=server.url), pool, method)) as scorer:
        yield scorer


def agree(scored: list[list[RowScore]], expected: list[list[RowScore]]) -> bool:
    """Whether losses in nats a token are the same within 1e-3, and so is whether greedy decoding gives the answer."""
    pairs = [pair for rows in zip(scored, expected, strict=True) for pair in zip(*rows, strict=True)]
    return all(
        abs(ours.nll - theirs.nll) / ours.tokens < 1e-3 and (ours.tokens, ours.exact) == (theirs.tokens, theirs.exact)
        for ours, theirs in pairs
    )


def test_the_server_scores_and_answers_as_torch_does(
    server: Server, pool: list[Path], model: Any, rows: list[Row]
) -> None:
    with remote(server, POOL) as ours, closing(TorchScorer(model, pool, "exact")) as theirs:
        scored = ours.score(POPULATION, rows)
        assert agree(scored, theirs.score(POPULATION, rows))
        assert [score.exact for score in scored[1]] == [True, False, False]
        answered = ours.answers(POPULATION[1], [rows[0].prompt], 12)
        assert answered == theirs.answers(POPULATION[1], [rows[0].prompt], 12) == [list(rows[0].answer[:-1])]
        assert not agree(scored, ours.score([(0.5, -0.25), *POPULATION[1:]], rows))


def test_the_server_scores_lorahubs_composition_as_torch_does(
    server: Server, pool: list[Path], model: Any, rows: list[Row]
) -> None:
    with remote(server, POOL, "lorahub") as ours, closing(TorchScorer(model, pool, "lorahub")) as theirs:
        assert agree(ours.score(POPULATION[2:], rows[:2]), theirs.score(POPULATION[2:], rows[:2]))


def test_what_the_server_cannot_mix_is_refused_before_anything_is_scored(server: Server) -> None:
    every = [f"{name}@1" for name in DEMO]
    with remote(server, every) as scorer:
        scorer.check(2)
        with pytest.raises(InvalidPool, match=r"serves up to \d+.*scorer `torch`"):
            scorer.check()
    with remote(server, ["date@1", "nobody@1"]) as scorer, pytest.raises(InvalidPool, match="no adapter 'nobody'"):
        scorer.check()


async def test_everybody_elses_requests_come_first(server: Server) -> None:
    """One that comes when three batches of a job's requests wait is answered with the first batch."""
    last = 3 * BATCH
    answered: list[int] = []

    async def ask(client: httpx.AsyncClient, number: int, wish: dict[str, str]) -> None:
        body = {"model": BASE, "prompt": [1000 + number] * 20, "max_tokens": 8, "ignore_eos": True}
        reply = await client.post("/v1/completions", json={**body, **wish})
        assert reply.status_code == 200, reply.text
        answered.append(number)

    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        async with holding(client, BATCH):
            await eventually(lambda: inside(client, 1), PATIENCE)
            waiting = [asyncio.ensure_future(ask(client, number, WAITS)) for number in range(last)]
            await eventually(lambda: inside(client, 1 + last), PATIENCE)
            waiting.append(asyncio.ensure_future(ask(client, last, {})))
            await eventually(lambda: inside(client, 1 + len(waiting)), PATIENCE)
        await asyncio.gather(*waiting)
    assert answered.index(last) < BATCH


def wanted(**more: object) -> dict[str, object]:
    spec = {"name": "blended", "pool": ["date", "words"], "scorer": "server", "publish": "always"}
    optimizer = {"name": "RandomSearch", "budget": 4}
    return {**spec, "examples": EXAMPLES[:3], "holdout": EXAMPLES[3:5], "optimizer": optimizer, **more}


def events(client: httpx.Client, id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a job's stream tells, as it is told."""
    with client.stream("GET", f"{JOBS}/{id}/events") as stream:
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


async def test_a_job_that_is_posted_ends_in_a_served_adapter(server: Server) -> None:
    with server.client() as client:
        reply = client.post(JOBS, json=wanted())
        assert reply.status_code == 202, reply.text
        id = reply.json()["id"]
        told = list(events(client, id))
        assert told[-1][0] == "end"
        assert told[-1][1]["status"] == "done", client.get(f"{JOBS}/{id}").text
        trials = [data for name, data in told if name == "trial"]
        assert [trial["kind"] for trial in trials[:4]] == ["none", "single", "single", "mean"]
        assert trials[1]["loss"] < trials[0]["loss"]
        result = client.get(f"{JOBS}/{id}").json()["result"]
        assert result["published"] == "blended@1"
        assert client.get(f"{JOBS}/{id}/report").text.lower().startswith("<!doctype html>")
        answer = client.post("/v1/chat/completions", json=chat_body("blended", EXAMPLES[5]["prompt"], max_tokens=16))
        assert (answer.status_code, answer.json()["model"]) == (200, "blended@1")
        digest = client.get("/v1/adapters/blended").json()["versions"][0]["digest"]

        async def measured() -> bool:
            return "effect" in Store.open(server.store).facts(digest)

        await eventually(measured)
        assert client.delete("/v1/adapters/blended").status_code == 200


def test_a_job_that_is_cancelled_ends_soon(server: Server) -> None:
    with server.client() as client:
        id = client.post(JOBS, json=wanted(optimizer={"name": "RandomSearch", "budget": 5000})).json()["id"]
        for name, data in events(client, id):
            if name == "trial" and data["trial"] == 0:
                assert client.post(f"{JOBS}/{id}/cancel").status_code == 200
        assert (name, data["status"]) == ("end", "cancelled")
        assert data["trials"] < 1000
        listed = {each["id"]: each["status"] for each in client.get(JOBS).json()["data"]}
        assert listed[id] == "cancelled"


def test_files_of_the_server_are_not_read(server: Server) -> None:
    with server.client() as client:
        reply = client.post(JOBS, json=wanted(examples="/etc/passwd"))
    assert (reply.status_code, error_of(reply)["code"]) == (400, "not_available")
