"""Text that the large model writes: conversations that it ends itself, sampled in batches."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .prompts import Conversation

BATCH = 128


@torch.inference_mode()
def written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    longest: int,
    progress: Callable[[int], None],
    seed: int = 0,
) -> list[list[int]]:
    """Token ids of each conversation with an answer sampled from the model itself, in the order given.

    Args:
        longest: tokens of an answer, after which it is cut.
        progress: receives the number of conversations done, after each batch.
    """
    torch.manual_seed(seed)
    prompts = [_ids(tokenizer, conversation) for conversation in conversations]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        answers = _sample(model, [prompts[number] for number in numbers], tokenizer.eos_token_id, longest)
        for number, answer in zip(numbers, answers, strict=True):
            found[number] = prompts[number] + answer
        progress(start + len(numbers))
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[int]:
    messages = [{"role": role, "content": content} for role, content in conversation]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _sample(model: PreTrainedModel, rows: list[list[int]], end: int, longest: int) -> list[list[int]]:
    """An answer to each row of ids: its end included, where the model came to one."""
    width = max(map(len, rows))
    ids = torch.tensor([[end] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    made = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=longest,
        do_sample=True,
        temperature=1.0,
        top_k=50,
        pad_token_id=end,
    )
    answers = made[:, width:].tolist()
    return [answer[: answer.index(end) + 1] if end in answer else answer for answer in answers]
