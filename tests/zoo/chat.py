"""Conversations as token ids, and batched greedy answers to them."""

from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .task import Example

_BATCH = 50


def prompt_ids(tokenizer: PreTrainedTokenizerBase, shots: Sequence[Example], prompt: str) -> list[int]:
    """Token ids of a conversation: solved examples as earlier turns, the prompt, the start of the answer."""
    turns = [turn for shot in shots for turn in (("user", shot.prompt), ("assistant", shot.expected))]
    messages = [{"role": role, "content": content} for role, content in [*turns, ("user", prompt)]]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def answer_ids(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """Token ids of an assistant's turn, its end included."""
    return [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    shots: Sequence[Example] = (),
    limit: int = 64,
) -> list[str]:
    """The model's greedy answers, each cut at the end of the turn or after `limit` tokens."""
    found: list[str] = []
    for start in range(0, len(prompts), _BATCH):
        batch = [prompt_ids(tokenizer, shots, prompt) for prompt in prompts[start : start + _BATCH]]
        ids = _greedy(model, batch, tokenizer.eos_token_id, limit)
        found += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return found


@torch.inference_mode()
def _greedy(model: PreTrainedModel | PeftModel, batch: list[list[int]], end: int, limit: int) -> torch.Tensor:
    """Continue each row. The prefix that all rows share is computed once, and the rest is padded on the left.

    Returns:
        New token ids, (rows, steps); a row that ended is filled with `end`.
    """
    shared = _shared_prefix(batch)
    cache = model(torch.tensor([batch[0][:shared]]), logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(len(batch))
    rests = [row[shared:] for row in batch]
    width = max(map(len, rests))
    ids = torch.tensor([[end] * (width - len(rest)) + rest for rest in rests])
    mask = torch.tensor([[1] * shared + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests])
    running = torch.ones(len(batch), dtype=torch.bool)
    steps: list[torch.Tensor] = []
    while running.any() and len(steps) < limit:
        positions = (mask.cumsum(1) - 1)[:, -ids.shape[1] :]
        output = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
        following = output.logits[:, -1].argmax(-1)
        steps.append(torch.where(running, following, end))
        running &= following != end
        ids, mask = following[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return torch.stack(steps, 1)


def _shared_prefix(batch: list[list[int]]) -> int:
    """How many leading ids all rows have in common, at least one id of each row left over."""
    alike = 0
    for column in zip(*batch, strict=False):
        if len(set(column)) > 1:
            break
        alike += 1
    return min(alike, *(len(row) - 1 for row in batch))
