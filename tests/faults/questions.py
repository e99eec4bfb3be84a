"""What clients ask, and the right answer of exactly the version that they ask for, learned before any fault."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.demo.catalog import DemoAdapter
from tests.bench.soak import learned
from tests.bench.soak_answers import BASE, Case
from tests.faults.answers import Question, ask
from tests.faults.errors import CampaignError
from tests.faults.recorder import GOOD

PROMPTS = 1
"""Of each adapter."""
CHANGING = "changing"
"""A name whose versions do different tasks."""
TAG = "stable"


def fill(folder: Path, model: Path, adapters: Sequence[DemoAdapter]) -> None:
    """Publish each adapter under its own name, and all of them as versions of `CHANGING`."""
    store, base = Store.open(folder), fingerprint(model)
    for adapter in adapters:
        store.publish(adapter.folder, adapter.name, base=base, base_name=BASE)
        store.publish(adapter.folder, CHANGING, base=base, base_name=BASE)
    store.tag(CHANGING, TAG, 1)


async def questions(client: httpx.AsyncClient, adapters: Sequence[DemoAdapter]) -> list[Question]:
    """What can be asked of the filled store, of names, versions, a tag and mixtures.

    Raises:
        CampaignError: no mixture is sure of its answers.
        InvalidRun: an adapter is not.
    """
    cases = await learned(client, adapters, PROMPTS)
    mixed = [each for each in mixtures(cases, adapters) if await _is_sure(client, each)]
    if not mixed:
        raise CampaignError("no mixture of two answers as its adapters do: take other weights")
    return [*singles(cases, adapters), *mixed]


def singles(cases: Mapping[str, Sequence[Case]], adapters: Sequence[DemoAdapter]) -> list[Question]:
    """Each adapter by its name, and as a version of `CHANGING`."""
    asked = []
    for number, adapter in enumerate(adapters, start=1):
        for case in cases[adapter.name]:
            asked += [_question(adapter.name, f"{adapter.name}@1", case)]
            asked += [_question(f"{CHANGING}@{number}", f"{CHANGING}@{number}", case)]
    asked.append(_question(CHANGING, f"{CHANGING}@{len(adapters)}", cases[adapters[-1].name][0]))
    asked.append(_question(f"{CHANGING}@{TAG}", f"{CHANGING}@1", cases[adapters[0].name][0]))
    return asked


def mixtures(cases: Mapping[str, Sequence[Case]], adapters: Sequence[DemoAdapter]) -> list[Question]:
    """Mixtures of each adapter with the next, asked for the task of the first."""
    pairs = zip(adapters, adapters[1:], strict=False)
    return [
        _question(f"0.7*{one.name}+0.7*{two.name}", f"0.7*{one.name}@1+0.7*{two.name}@1", cases[one.name][0])
        for one, two in pairs
    ]


def _question(model: str, named: str, case: Case) -> Question:
    return Question(model, named, case.prompt, case.expected)


async def _is_sure(client: httpx.AsyncClient, question: Question) -> bool:
    """Whether it answers right alone and in a batch."""
    ends = [await ask(client, question, stream=False)]
    ends += await asyncio.gather(*(ask(client, question, stream=True) for _ in range(4)))
    return set(ends) == {GOOD}
