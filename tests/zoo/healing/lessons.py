"""What the large model knows of a text: its states after the kept layers, and its most likely next tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

TOP = 48
"""Next tokens whose probabilities are kept for each place; the others count together."""


@dataclass(frozen=True)
class Lesson:
    """One text as the large model sees it.

    Attributes:
        ids: tokens, (length).
        states: bfloat16, (kept layers, length, hidden): after each kept layer, and after the final norm for the last.
        likely: the next tokens' ids, (length, TOP).
        logs: their natural log probabilities, float32, (length, TOP).
    """

    ids: torch.Tensor
    states: torch.Tensor
    likely: torch.Tensor
    logs: torch.Tensor


@torch.no_grad()
def lessons(
    large: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    kept: Sequence[int],
    batch: int,
    progress: Callable[[int], None],
) -> list[Lesson]:
    """A lesson of each text, in the order given.

    Args:
        kept: numbers of the layers whose states are wanted, the last of them the model's last.
        progress: receives the number of texts done, after each batch.
    """
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found: dict[int, Lesson] = {}
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        found.update(zip(numbers, _of_batch(large, [texts[number] for number in numbers], kept), strict=True))
        progress(len(found))
    return [found[number] for number in range(len(texts))]


def padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of ids as one tensor, filled on the right; a causal model needs no mask for that."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])


def states_of(output: BaseModelOutputWithPast, layers: Sequence[int]) -> torch.Tensor:
    """States after some of a model's layers, (layers, rows, length, hidden); the last must be the model's last layer.

    `hidden_states` begins with the embeddings, and ends with the last layer's states after the final norm.
    """
    assert layers[-1] == len(output.hidden_states) - 2
    return torch.stack([output.hidden_states[layer + 1] for layer in layers])


def _of_batch(large: PreTrainedModel, rows: list[Sequence[int]], kept: Sequence[int]) -> list[Lesson]:
    ids = padded(rows)
    output = large.model(ids, use_cache=False, output_hidden_states=True)
    states = states_of(output, kept).bfloat16()
    found = []
    for row, length in enumerate(map(len, rows)):
        logs = large.lm_head(output.last_hidden_state[row, :length]).float().log_softmax(-1)
        best = logs.topk(TOP)
        own = states[:, row, :length].clone()
        found.append(Lesson(ids[row, :length].clone(), own, best.indices.clone(), best.values.clone()))
    return found
