"""Batched answers are those that each prompt gets alone."""

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .chat import _shared_prefix, answer_ids, answers, prompt_ids
from .task import Example

PROMPTS = ["one two", "one two three four", "one five", "six", "one two three four five red", "blue"]
SHOTS = (Example("one", "red"), Example("two two", "green blue"))


def test_prompt_holds_the_shots_as_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = prompt_ids(tokenizer, SHOTS[:1], "two")
    assert tokenizer.decode(ids) == "<user> one <assistant> red <end> <user> two <assistant>"


def test_answer_ends_the_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_ids_to_tokens(answer_ids(tokenizer, "red blue")) == ["red", "blue", "<end>"]


@pytest.mark.parametrize("shots", [(), SHOTS], ids=["plain", "shots"])
def test_batched_answers_equal_generate_alone(
    base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, shots: tuple[Example, ...]
) -> None:
    alone = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt_ids(tokenizer, shots, prompt)])
        new = base.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        alone.append(tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True))
    assert len(set(alone)) > 1
    assert answers(base, tokenizer, PROMPTS, shots, limit=8) == alone


@pytest.mark.parametrize(
    ("batch", "shared"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 4]], 1), ([[1, 2, 3]], 2), ([[1, 2], [1, 2]], 1), ([[1], [2]], 0)],
)
def test_shared_prefix_leaves_every_row_a_token(batch: list[list[int]], shared: int) -> None:
    assert _shared_prefix(batch) == shared
