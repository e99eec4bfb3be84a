"""Rows in a line each, padded to the longest: the layout that every causal language model understands."""

from collections.abc import Iterator, Sequence

import torch

from loraloom.compose.scorers.batches import Batch
from loraloom.compose.scoring import Row


def padded(rows: Sequence[Row], limit: int, device: torch.device) -> Iterator[Batch]:
    """The rows in their order, in batches of at most `limit` tokens with padding, or of one row."""
    members: list[Row] = []
    for row in rows:
        if members and (len(members) + 1) * max(map(len, [*members, row])) > limit:
            yield _batch(members, device)
            members = []
        members.append(row)
    yield _batch(members, device)


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
