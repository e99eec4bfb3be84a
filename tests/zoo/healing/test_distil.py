"""Healing brings a pruned model near the whole one, and its file holds all that was learned."""

import pytest
import torch
from transformers import LlamaForCausalLM

from loraloom.demo.small import healed

from . import lessons as module
from .distil import Healing, _batches, _share, distil, divergence, factors, relative_error
from .lessons import Lesson, lessons
from .pruning import pruned

HEALING = Healing(rank=16, steps=60, batch=4, rate=1e-2, quiet=0.5, places=0.5)


@pytest.fixture
def learned(base: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> list[Lesson]:
    monkeypatch.setattr(module, "TOP", 6)
    texts = torch.randint(3, 12, (12, 8), generator=torch.Generator().manual_seed(0)).tolist()
    return lessons(base, texts, (1,), 4, lambda _: None)


def test_heals_and_its_factors_make_the_healed_model(base: LlamaForCausalLM, learned: list[Lesson]) -> None:
    told: list[tuple[float, float]] = []
    model = distil(pruned(base, (1,)), learned, HEALING, lambda _, states, tokens: told.append((states, tokens)))
    assert told[-1][0] < told[0][0] / 3
    assert {tokens for _, tokens in told[:30]} == {0.0}
    assert told[-1][1] < told[30][1]
    fresh = pruned(base, (1,))
    fresh.load_state_dict(healed(fresh.state_dict(), factors(model)))
    ids = learned[0].ids[None]
    wanted, found = model(ids).logits, fresh(ids).logits
    assert torch.allclose(wanted, found, atol=0.05)
    assert not torch.allclose(wanted, pruned(base, (1,))(ids).logits, atol=0.5)


def test_rate_rises_then_falls() -> None:
    rates = [_share(step, 100) for step in range(100)]
    assert rates[4] == max(rates) == 1.0
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < min(rates) < 0.01


def test_batches_use_every_lesson_before_any_twice(learned: list[Lesson]) -> None:
    source = _batches(learned, HEALING)
    seen = [id(lesson) for _ in range(3) for lesson in next(source)]
    assert sorted(seen) == sorted(map(id, learned))
    assert len(next(source)) == HEALING.batch


def test_error_is_relative_to_each_place() -> None:
    wanted = torch.tensor([[[2.0, 0.0], [0.0, 100.0]]])
    assert relative_error(wanted, wanted) == 0
    assert relative_error(torch.tensor([[[1.0, 0.0], [0.0, 50.0]]]), wanted) == pytest.approx(0.25)


def test_divergence_is_that_of_the_distributions() -> None:
    logits, other = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
    logs = logits.log_softmax(-1)
    everything = torch.arange(9).expand(5, 9)
    wanted = (logs.exp() * (logs - other.log_softmax(-1))).sum(-1).mean()
    assert divergence(other, everything, logs).item() == pytest.approx(wanted.item(), abs=1e-3)
    likely = logs.topk(4)
    assert divergence(logits, likely.indices, likely.values).item() == pytest.approx(0, abs=1e-6)
    assert 0 < divergence(other, likely.indices, likely.values) < wanted
