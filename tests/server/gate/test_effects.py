"""What an adapter does is measured once it is published."""

import logging

import pytest

from loraloom.adapters.store import Store
from loraloom.server.gate.effects import FACT, PROMPT, Effect, Effects
from loraloom.server.gate.gate import Gate
from loraloom.server.observe.account import CURRENT, Account
from tests.server.conftest import MAX_RANK, Publish
from tests.server.fakes import FakeEngine


@pytest.fixture
def effects(gate: Gate) -> Effects:
    return gate.effects


def test_the_changes_of_each_token() -> None:
    effect = Effect.between([-1.0, -2.0, -3.0], [-1.5, -2.0, -1.0], "a text")
    assert effect == Effect(2.0, pytest.approx(2.5 / 3), 3, "a text")


def test_prompts_of_different_lengths_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Effect.between([-1.0, -2.0], [-1.0], "a text")


async def test_the_effect_becomes_a_fact(effects: Effects, store: Store, publish: Publish, engine: FakeEngine) -> None:
    record = publish("sql")
    effects.measure(record)
    await effects.idle()
    words = [len(word) for word in PROMPT.split()]
    assert store.facts(record.digest)[FACT] == {
        "max_logprob_change": float(max(words)),
        "mean_logprob_change": pytest.approx(sum(words) / len(words)),
        "tokens": len(words),
        "prompt": PROMPT,
    }
    assert engine.loads == ["sql@1"]


async def test_one_that_does_nothing_is_told(
    effects: Effects, store: Store, publish: Publish, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    record = publish("sql")
    engine.idle.add("sql@1")
    with caplog.at_level(logging.WARNING):
        effects.measure(record)
        await effects.idle()
    assert store.facts(record.digest)[FACT]["max_logprob_change"] == 0
    assert "sql@1 changes no log-probability" in caplog.text


async def test_what_cannot_be_measured_does_no_harm(
    effects: Effects, store: Store, publish: Publish, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    refused, sound = publish("refused"), publish("sound")
    engine.refused.add("refused@1")
    with caplog.at_level(logging.WARNING):
        for record in (refused, sound):
            effects.measure(record)
        await effects.idle()
    assert "the effect of refused@1 could not be measured: refused@1 does not fit the model" in caplog.text
    assert FACT not in store.facts(refused.digest)
    assert FACT in store.facts(sound.digest)


async def test_many_publications_take_one_place_at_a_time(
    effects: Effects, gate: Gate, publish: Publish, engine: FakeEngine
) -> None:
    held = publish("held")
    async with gate.leases.hold(held.canonical, held.digest):
        for number in range(8):
            effects.measure(publish(f"sql-{number}"))
        await effects.idle()
        assert "held@1" in engine.held
    assert len(engine.loads) == 9


async def test_what_cannot_be_served_is_not_loaded(
    effects: Effects, store: Store, publish: Publish, engine: FakeEngine
) -> None:
    large, removed = publish("large", rank=MAX_RANK + 1), publish("removed")
    store.remove("removed")
    for record in (large, removed):
        effects.measure(record)
    await effects.idle()
    assert engine.loads == []


async def test_the_request_that_publishes_does_not_pay_for_it(
    effects: Effects, publish: Publish, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    paying: list[Account | None] = []
    probe = engine.prompt_logprobs

    async def noted(name: str | None, prompt: str) -> list[float]:
        paying.append(CURRENT.get())
        return await probe(name, prompt)

    monkeypatch.setattr(engine, "prompt_logprobs", noted)
    token = CURRENT.set(Account("r1"))
    effects.measure(publish("sql"))
    await effects.idle()
    CURRENT.reset(token)
    assert paying == [None, None]
