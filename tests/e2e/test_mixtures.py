"""Mixtures on the real engine: as dense merged weights in transformers, alone, in one batch, and very many."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.reference import Merged, Reference, Updates, agrees, truncated
from tests.e2e.serving import MIXTURE_CACHE, Server, chat_body, error_of

pytestmark = pytest.mark.engine

LENGTH = 16
DEMO = {adapter.name: adapter for adapter in demo_adapters()}
ASKED = {
    "0.7*date+0.7*words": "date",
    "0.5*date+0.5*words": "words",
    "0.8*date+-0.4*topic": "date",
    "0.6*units+0.3*money+0.2*sql": "units",
    "0.4*date+0.4*words+0.4*topic+0.4*units": "topic",
    "-0.5*sql": "sql",
    "lorahub:0.6*date+0.6*words": "words",
    "svd(rank=6):0.9*sql+0.7*home": "home",
}
"""Eight mixtures, and the demo adapter whose prompts each is asked."""


@dataclass(frozen=True)
class Answer:
    """What the server generated."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@pytest.fixture(scope="module")
def merged(demo_model: Path) -> Merged:
    return Merged(demo_model, {name: DEMO[name].folder for name in DEMO})


@pytest.fixture(scope="module")
def reference(merged: Merged) -> dict[str, Reference]:
    """What transformers generates with each mixture's update in its weights."""
    updates: dict[str, Callable[[], Updates]] = {
        "0.7*date+0.7*words": lambda: merged.weighted_sum({"date": 0.7, "words": 0.7}),
        "0.5*date+0.5*words": lambda: merged.weighted_sum({"date": 0.5, "words": 0.5}),
        "0.8*date+-0.4*topic": lambda: merged.weighted_sum({"date": 0.8, "topic": -0.4}),
        "0.6*units+0.3*money+0.2*sql": lambda: merged.weighted_sum({"units": 0.6, "money": 0.3, "sql": 0.2}),
        "0.4*date+0.4*words+0.4*topic+0.4*units": lambda: merged.weighted_sum(
            dict.fromkeys(("date", "words", "topic", "units"), 0.4)
        ),
        "-0.5*sql": lambda: merged.weighted_sum({"sql": -0.5}),
        "lorahub:0.6*date+0.6*words": lambda: merged.composed({"date": 0.6, "words": 0.6}),
        "svd(rank=6):0.9*sql+0.7*home": lambda: truncated(merged.weighted_sum({"sql": 0.9, "home": 0.7}), 6),
    }
    assert set(updates) == set(ASKED)
    return {mixture: merged.greedy_with(prompt_of(mixture), update(), LENGTH) for mixture, update in updates.items()}


def prompt_of(mixture: str) -> str:
    return DEMO[ASKED[mixture]].examples[0][0]


async def ask(client: httpx.AsyncClient, model: str, prompt: str, length: int = LENGTH) -> Answer:
    body = chat_body(model, prompt, max_tokens=length, return_token_ids=True, logprobs=True)
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    return Answer(tuple(choice["token_ids"]), tuple(each["logprob"] for each in choice["logprobs"]["content"]))


async def ask_each(server: Server, mixtures: Sequence[str], *, together: bool) -> dict[str, Answer]:
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        if together:
            answers = await asyncio.gather(*(ask(client, mixture, prompt_of(mixture)) for mixture in mixtures))
            return dict(zip(mixtures, answers, strict=True))
        return {mixture: await ask(client, mixture, prompt_of(mixture)) for mixture in mixtures}


@pytest.fixture(scope="module")
def batch(server: Server) -> dict[str, Answer]:
    """All eight at once; the server has four slots and six places in memory."""
    return asyncio.run(ask_each(server, list(ASKED), together=True))


def test_mixtures_answer_as_dense_merged_weights(batch: dict[str, Answer], reference: dict[str, Reference]) -> None:
    different = {
        mixture: (answer.tokens, reference[mixture].tokens)
        for mixture, answer in batch.items()
        if not agrees(answer.tokens, reference[mixture])
    }
    assert not different


def test_their_log_probabilities_are_those_of_dense_merged_weights(
    batch: dict[str, Answer], reference: dict[str, Reference]
) -> None:
    for mixture, answer in batch.items():
        same = [ours == theirs for ours, theirs in zip(answer.tokens, reference[mixture].tokens, strict=False)]
        common = same.index(False) if False in same else len(same)
        assert answer.logprobs[:common] == pytest.approx(reference[mixture].logprobs[:common], abs=2e-3), mixture


def test_each_answers_in_a_batch_as_alone(
    server: Server, batch: dict[str, Answer], reference: dict[str, Reference]
) -> None:
    alone = asyncio.run(ask_each(server, list(ASKED), together=False))
    different = [
        mixture
        for mixture in ASKED
        if batch[mixture].tokens != alone[mixture].tokens and not agrees(batch[mixture].tokens, reference[mixture])
    ]
    assert not different


def test_the_mixtures_differ_from_their_adapters_and_from_the_base(
    merged: Merged, reference: dict[str, Reference]
) -> None:
    """The comparisons above could not tell weights apart if all of them gave the same."""
    four = "0.4*date+0.4*words+0.4*topic+0.4*units"
    other = merged.weighted_sum({"date": 0.4, "words": 0.4, "topic": 0.4, "units": 0.35})
    variants = {mixture: merged.greedy_with(prompt_of(mixture), {}, 4) for mixture in ASKED}
    variants[four] = merged.greedy_with(prompt_of(four), other, 4)
    for mixture, variant in variants.items():
        assert variant.logprobs[:4] != pytest.approx(reference[mixture].logprobs[:4], abs=2e-3), mixture


def test_the_response_names_what_ran_and_how_it_came_out(server: Server) -> None:
    with server.client() as client:
        for model, name, rank in (
            ("0.4*words + 0.6*date@1", "0.6*date@1+0.4*words@1", "16"),
            ("svd(rank=2):date+words", "svd(rank=2):1*date@1+1*words@1", "2"),
        ):
            reply = client.post("/v1/chat/completions", json=chat_body(model, "Hello", max_tokens=2))
            assert reply.json()["model"] == name
            assert reply.headers["loraloom-mixture-rank"] == rank
            assert (float(reply.headers["loraloom-mixture-error"]) > 0) == (rank == "2")


def test_weight_one_alone_is_the_adapter_itself(server: Server) -> None:
    prompt = DEMO["date"].examples[0][0]

    async def both() -> tuple[Answer, ...]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            names = ("date", "1*date", "0.25*date+0.75*date@1", "svd(rank=8):date")
            return tuple(await asyncio.gather(*(ask(client, name, prompt) for name in names)))

    plain, *mixed = asyncio.run(both())
    assert all(answer.tokens == plain.tokens for answer in mixed)
    assert all(answer.logprobs == pytest.approx(plain.logprobs, abs=1e-3) for answer in mixed)


def test_a_streamed_answer_by_a_mixture(server: Server) -> None:
    body = chat_body("0.7*date+0.7*words", prompt_of("0.7*date+0.7*words"), max_tokens=8, stream=True)
    with server.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["loraloom-mixture-rank"] == "16"
        lines = [line for line in reply.iter_lines() if line.startswith("data: {")]
    assert len(lines) >= 2  # the role, and tokens, of which several may come together
    assert all('"model":"0.7*date@1+0.7*words@1"' in line for line in lines)


def test_a_mixture_solves_the_tasks_of_both_its_adapters(server: Server) -> None:
    """Neither adapter solves the other's task, and the base solves none."""
    tasks = {name: DEMO[name].examples[:8] for name in ("name", "units")}

    async def solved(model: str) -> dict[str, int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

            async def right(prompt: str, expected: str) -> bool:
                reply = await client.post("/v1/chat/completions", json=chat_body(model, prompt, max_tokens=28))
                return bool(reply.json()["choices"][0]["message"]["content"].strip() == expected)

            return {
                task: sum(await asyncio.gather(*(right(*example) for example in examples)))
                for task, examples in tasks.items()
            }

    both, name, units = (asyncio.run(solved(model)) for model in ("0.7*name+0.7*units", "name", "units"))
    assert min(both.values()) >= 6
    assert (name["name"], units["units"]) == (8, 8)
    assert name["units"] <= 1
    assert units["name"] <= 1


def test_forty_mixtures_over_a_cache_of_ten(server: Server, merged: Merged) -> None:
    """Evicted ones are built again and answer as before; the folder never holds more than it may."""
    mixtures = [f"{0.3 + number / 64}*date+{0.9 - number / 64}*words" for number in range(40)]
    prompt = DEMO["date"].examples[1][0]
    folder = server.log.parent / "cache" / "scratch"

    async def round_of(order: Sequence[str]) -> dict[str, Answer]:
        found = {}
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            for at in range(0, len(order), 5):
                group = order[at : at + 5]
                answers = await asyncio.gather(*(ask(client, mixture, prompt, 10) for mixture in group))
                found |= dict(zip(group, answers, strict=True))
                assert stored(folder) <= MIXTURE_CACHE
        return found

    first = asyncio.run(round_of(mixtures))
    again = asyncio.run(round_of(mixtures[::-1]))
    assert all(again[mixture].logprobs == pytest.approx(first[mixture].logprobs, abs=1e-3) for mixture in mixtures)
    for number in (0, 17, 39):
        weights = {"date": 0.3 + number / 64, "words": 0.9 - number / 64}
        expected = merged.greedy_with(prompt, merged.weighted_sum(weights), 10)
        assert agrees(first[mixtures[number]].tokens, expected)
        assert first[mixtures[number]].logprobs[:5] == pytest.approx(expected.logprobs[:5], abs=2e-3)


def stored(folder: Path) -> int:
    """Bytes of the files in a folder, of which some may be about to go."""
    total = 0
    for file in folder.rglob("*.safetensors"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_a_published_mixture_is_an_adapter(server: Server) -> None:
    with server.client() as client:
        wanted = {"adapter": "0.7*date+0.7*words", "name": "both", "tag": "stable"}
        built = client.post("/v1/mixtures", json=wanted)
        assert built.status_code == 201
        assert built.json()["rank"] == 16
        prompt = DEMO["date"].examples[2][0]
        bodies = [chat_body(model, prompt, max_tokens=12) for model in ("both@stable", "0.7*date+0.7*words")]
        replies = [client.post("/v1/chat/completions", json=body).json() for body in bodies]
        assert replies[0]["model"] == "both@1"
        assert replies[0]["choices"][0]["message"] == replies[1]["choices"][0]["message"]
        assert client.delete("/v1/adapters/both").status_code == 200


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("0.5*date+nobody", 404, "model_not_found"),
        ("0.5*date+", 400, "invalid_model"),
        ("inf*date", 400, "invalid_model"),
        ("1e308*date+words", 400, "invalid_mixture"),
        ("+".join(["date"] * 100), 400, "invalid_mixture"),
        ("lorahub:date+sql", 400, "invalid_mixture"),
        ("svd:date+words", 400, "invalid_model"),
        ("svd(rank=0):date+words", 400, "invalid_model"),
        ("ties(density=0.5):date+words", 400, "not_available"),
        ("+".join(DEMO), 400, "rank_too_high"),
    ],
)
def test_bad_mixtures_are_told_apart(server: Server, model: str, status: int, code: str) -> None:
    with server.client() as client:
        reply = client.post("/v1/chat/completions", json=chat_body(model, "Hello", max_tokens=1))
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)
