"""One mixed batch gives every request the answer that it gets alone, and that transformers with peft gives."""

import asyncio
from pathlib import Path

import pytest

from loraloom.demo.catalog import demo_adapters
from tests.e2e.mixed import Answers, Case, answers
from tests.e2e.reference import Reference, Transformers, agrees
from tests.e2e.serving import Server

pytestmark = pytest.mark.engine

LENGTH = 32
ADAPTERS = demo_adapters()[:6]


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


@pytest.fixture(scope="module")
def batch(server: Server) -> Answers:
    """Every case's answer in one mixed batch."""
    return asyncio.run(answers(server.url, cases(), LENGTH, together=True))


def test_a_mixed_batch_answers_each_request_as_alone(
    server: Server, batch: Answers, reference: dict[Case, Reference]
) -> None:
    alone = asyncio.run(answers(server.url, cases(), LENGTH, together=False))
    different = [case for case in cases() if batch[case] != alone[case] and not agrees(batch[case], reference[case])]
    assert not different


def test_a_mixed_batch_answers_as_transformers_and_peft(batch: Answers, reference: dict[Case, Reference]) -> None:
    different = {
        case: (batch[case], reference[case].tokens) for case in cases() if not agrees(batch[case], reference[case])
    }
    assert not different


def test_adapters_change_the_answers(reference: dict[Case, Reference], batch: Answers) -> None:
    """The comparison above could not tell adapters apart if they all answered alike."""
    assert len({batch[case] for case in cases()}) > len(cases()) / 2
    assert {case.adapter for case in cases()} == {None, *(adapter.name for adapter in ADAPTERS)}
    assert set(reference) == set(batch)
