"""Greedy answers to many prompts at once."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 4096
_PLAIN = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Whatever the model's own settings are."""


class Greedy:
    """Takes the likeliest token, one after the other, until one that ends the model's turn."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model = model
        config = model.generation_config
        ends = None if config is None else config.eos_token_id
        self._ends = frozenset() if ends is None else frozenset([ends] if isinstance(ends, int) else ends)

    def answers(self, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        """The new tokens after each prompt, at most `limit`, without the one that ends the turn."""
        found: dict[int, list[int]] = {}
        for places in _batches(prompts, limit):
            found |= zip(places, self._answers([prompts[place] for place in places], limit), strict=True)
        return [found[place] for place in range(len(prompts))]

    def _answers(self, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        given, mask = _padded_left(prompts, longest, self._model.device)
        new = self._model.generate(  # type: ignore[operator]  # (transformers' mixin is not typed)
            given, attention_mask=mask, max_new_tokens=limit, pad_token_id=min(self._ends, default=0), **_PLAIN
        )
        return [self._until_end(line) for line in new[:, longest:].tolist()]

    def _until_end(self, tokens: Sequence[int]) -> list[int]:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), len(tokens))
        return list(tokens[:end])


def _batches(prompts: Sequence[Sequence[int]], limit: int) -> Iterator[list[int]]:
    """The prompts by their places, alike in length, as many together as come to `BATCH_TOKENS` in the end."""
    members: list[int] = []
    for place in sorted(range(len(prompts)), key=lambda place: len(prompts[place])):
        if members and (len(members) + 1) * (len(prompts[place]) + limit) > BATCH_TOKENS:
            yield members
            members = []
        members.append(place)
    if members:
        yield members


def _padded_left(prompts: Sequence[Sequence[int]], length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """[prompts, length] token ids, and which of them are real."""
    tokens = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return tokens, mask
