import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from loraloom.compose.scorers import greedy
from loraloom.compose.scorers.greedy import Greedy
from tests.compose.scorers.architectures import tiny

PROMPTS = [(1, 5, 9, 20), (3,), (1, 5, 9, 20, 41, 7, 8), (60, 61), (1, 5, 9, 20)]


@torch.inference_mode()
def one_by_one(model: PreTrainedModel, prompt: tuple[int, ...], limit: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(limit):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("room", [1, 4096])
def test_each_answer_is_that_of_its_prompt_alone(name: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "BATCH_TOKENS", room)
    model = tiny(name)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = None
    assert Greedy(model).answers(PROMPTS, 5) == [one_by_one(model, prompt, 5) for prompt in PROMPTS]


@pytest.mark.parametrize("several", [False, True])
def test_an_answer_ends_before_the_token_that_ends_the_turn(several: bool) -> None:
    model = tiny("llama")
    whole = [one_by_one(model, prompt, 6) for prompt in PROMPTS]
    end = whole[2][2]
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [95, end] if several else end
    found = Greedy(model).answers(PROMPTS, 6)
    assert found == [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in whole]
    assert len(found[2]) == whole[2].index(end) < 6


def test_the_models_own_settings_do_not_change_what_is_likeliest() -> None:
    model = tiny("llama")
    model.generation_config = GenerationConfig(do_sample=True, temperature=9.0, repetition_penalty=5.0)
    assert Greedy(model).answers(PROMPTS, 5) == [one_by_one(model, prompt, 5) for prompt in PROMPTS]
