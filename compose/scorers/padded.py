"""Rows in a line each, padded to the longest: the layout that every causal language model understands."""

from collections.abc import Sequence

import torch

from loraloom.compose.scorers.batches import Batch
from loraloom.compose.scoring import Row


def padded(rows: Sequence[Row], start: int, limit: int, device: torch.device) -> Batch:
    """The next rows from `start` on, as many as come to `limit` tokens with their padding, but one at least."""
    end, longest = start + 1, len(rows[start])
    while end < len(rows) and (end + 1 - start) * max(longest, len(rows[end])) <= limit:
        longest = max(longest, len(rows[end]))
        end += 1
    return _batch(rows[start:end], device)


def _batch(rows: Sequence[Row], device: torch.device) -> Batch:
    length = max(map(len, rows)) - 1
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for line, row in enumerate(rows):
        tokens[line, : len(row) - 1] = torch.tensor(row.prompt + row.answer[:-1])
        mask[line, : len(row) - 1] = 1
    places = [range(len(row.prompt) - 1, len(row) - 1) for row in rows]
    keep = sorted({place for each in places for place in each})
    index = {place: number for number, place in enumerate(keep)}
    return Batch(
        tokens=tokens.to(device),
        inputs={"attention_mask": mask.to(device)},
        keep=torch.tensor(keep, device=device),
        place=torch.tensor(
            [line * len(keep) + index[place] for line, each in enumerate(places) for place in each], device=device
        ),
        target=torch.tensor([token for row in rows for token in row.answer], device=device),
        lengths=tuple(len(row.answer) for row in rows),
    )
