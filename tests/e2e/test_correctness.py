"""One mixed batch gives every request the answer that it gets alone, and that transformers with peft gives."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.reference import Reference, Transformers, agrees
from tests.e2e.serving import BASE, Server, chat_body

pytestmark = pytest.mark.engine

LENGTH = 32
ADAPTERS = demo_adapters()[:6]


@dataclass(frozen=True)
class Case:
    """One request of the batch: the base or an adapter, and a prompt."""

    adapter: str | None
    prompt: str

    @property
    def model(self) -> str:
        """What goes into the request's `model`."""
        return self.adapter or BASE


def cases() -> list[Case]:
    """Twenty requests: prompts long and short, the base among the adapters, in changing order."""
    plain = ["What is the capital of France?", "Write one sentence about the sea. " + "Be brief and kind. " * 30]
    rows = [Case(None, prompt) for prompt in plain]
    for number in range(3):
        rows += [Case(adapter.name, adapter.examples[number][0]) for adapter in ADAPTERS]
    return rows[::2] + rows[1::2]


@pytest.fixture(scope="module")
def reference(demo_model: Path) -> dict[Case, Reference]:
    """The reference's continuation of every case."""
    model = Transformers(demo_model, {adapter.name: adapter.folder for adapter in ADAPTERS})
    return {case: model.greedy(case.prompt, case.adapter, LENGTH) for case in cases()}


async def answers(server: Server, wanted: list[Case], *, together: bool) -> dict[Case, tuple[int, ...]]:
    """The generated token ids of every case, asked for in one batch or one after the other."""
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

        async def ask(case: Case) -> tuple[int, ...]:
            body = chat_body(case.model, case.prompt, max_tokens=LENGTH, return_token_ids=True)
            reply = await client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            return tuple(reply.json()["choices"][0]["token_ids"])

        if together:
            return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))
        return {case: await ask(case) for case in wanted}


@pytest.fixture(scope="module")
def batch(server: Server) -> dict[Case, tuple[int, ...]]:
    """Every case's answer in one mixed batch."""
    return asyncio.run(answers(server, cases(), together=True))


def test_a_mixed_batch_answers_each_request_as_alone(
    server: Server, batch: dict[Case, tuple[int, ...]], reference: dict[Case, Reference]
) -> None:
    alone = asyncio.run(answers(server, cases(), together=False))
    different = [case for case in cases() if batch[case] != alone[case] and not agrees(batch[case], reference[case])]
    assert not different


def test_a_mixed_batch_answers_as_transformers_and_peft(
    batch: dict[Case, tuple[int, ...]], reference: dict[Case, Reference]
) -> None:
    different = {
        case: (batch[case], reference[case].tokens) for case in cases() if not agrees(batch[case], reference[case])
    }
    assert not different


def test_adapters_change_the_answers(reference: dict[Case, Reference], batch: dict[Case, tuple[int, ...]]) -> None:
    """The comparison above could not tell adapters apart if they all answered alike."""
    assert len({batch[case] for case in cases()}) > len(cases()) / 2
    assert {case.adapter for case in cases()} == {None, *(adapter.name for adapter in ADAPTERS)}
    assert set(reference) == set(batch)
