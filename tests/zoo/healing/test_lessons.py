"""A lesson holds what the model itself says of a text, however the texts are batched."""

import pytest
import torch
from transformers import LlamaForCausalLM

from . import lessons as module
from .lessons import lessons

TEXTS = [[3, 4, 5, 6, 7], [3, 9], [8, 3, 4]]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_lesson_is_of_its_text(base: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(module, "TOP", 4)
    done: list[int] = []
    found = lessons(base, TEXTS, (0, 1), batch, done.append)
    assert done[-1] == len(TEXTS)
    for text, lesson in zip(TEXTS, found, strict=True):
        output = base(torch.tensor([text]), output_hidden_states=True)
        logs = output.logits[0].log_softmax(-1)
        assert lesson.ids.tolist() == text
        assert torch.allclose(lesson.states.float(), torch.cat(output.hidden_states[1:]), rtol=0.01, atol=0.01)
        assert torch.allclose(lesson.logs, logs.topk(4).values, atol=1e-5)
        assert torch.allclose(logs.gather(-1, lesson.likely), lesson.logs, atol=1e-5)


def test_the_last_kept_layer_must_be_the_last(base: LlamaForCausalLM) -> None:
    with pytest.raises(AssertionError):
        lessons(base, TEXTS, (0,), 1, lambda _: None)
