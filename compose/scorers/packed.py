"""Rows packed into one line without padding, in which what several of them begin with is run once.

The line is a tree of tokens, written one after the other: each sees those on its own path alone (its mask says so) and
has the position that it has in its row. Of an answer the last token is left out: nothing is predicted from it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from loraloom.compose.scorers.batches import Batch
from loraloom.compose.scoring import Row


class Tree:
    """Sequences of tokens that share their beginnings."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.paths: list[list[int]] = []
        self._children: dict[tuple[int, int], int] = {}

    def missing(self, sequence: Sequence[int]) -> int:
        """How many tokens `add` would add."""
        node = -1
        for done, token in enumerate(sequence):
            if (node, token) not in self._children:
                return len(sequence) - done
            node = self._children[node, token]
        return 0

    def add(self, sequence: Sequence[int]) -> None:
        """Add a sequence; its path goes to the end of `paths`."""
        node, path = -1, []
        for token in sequence:
            node = self._child(node, token)
            path.append(node)
        self.paths.append(path)

    def visible(self) -> np.ndarray:
        """[tokens, tokens]: whether the second is on the way to the first, or is the first."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    def _child(self, node: int, token: int) -> int:
        child = self._children.setdefault((node, token), len(self.tokens))
        if child == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(node)
        return child


def common_prefix(rows: Sequence[Row]) -> int:
    """How many tokens all prompts begin with alike, leaving each a last one of its own."""
    first, *others = (row.prompt[:-1] for row in rows)
    length = len(first)
    for other in others:
        length = min(length, len(other))
        while first[:length] != other[:length]:
            length -= 1
    return length


def packed(rows: Sequence[Row], start: int, limit: int, device: torch.device, dtype: torch.dtype) -> Batch:
    """The next rows, as many as there is room for, in one line.

    The first batch has the prefix that is common to all rows, as its first tokens. The others have it not: they are to
    be run with a cache that holds it.

    Args:
        rows: all of them.
        start: the first that the batch is to have.
        limit: tokens of a line, unless it has one row only.
        device: where the tensors go.
        dtype: of the model's numbers, which masks are of.
    """
    skipped = common_prefix(rows) if start else 0
    tree, end = Tree(), start
    while end < len(rows):
        sequence = (rows[end].prompt + rows[end].answer[:-1])[skipped:]
        if end > start and len(tree.tokens) + tree.missing(sequence) > limit:
            break
        tree.add(sequence)
        end += 1
    return _batch(tree, rows[start:end], skipped, device, dtype)


def _batch(tree: Tree, rows: Sequence[Row], skipped: int, device: torch.device, dtype: torch.dtype) -> Batch:
    visible = np.pad(tree.visible(), ((0, 0), (skipped, 0)), constant_values=True)
    positions = visible.sum(axis=1) - 1
    nodes = [path[-len(row.answer) :] for path, row in zip(tree.paths, rows, strict=True)]
    keep, place = np.unique(np.concatenate(nodes), return_inverse=True)
    return Batch(
        tokens=torch.tensor([tree.tokens], device=device),
        inputs={
            "attention_mask": _mask(torch.from_numpy(visible), dtype)[None, None].to(device),
            "position_ids": torch.from_numpy(positions)[None].to(device),
        },
        keep=torch.from_numpy(keep).to(device),
        place=torch.from_numpy(place).to(device),
        target=torch.tensor([token for row in rows for token in row.answer], device=device),
        lengths=tuple(len(row.answer) for row in rows),
    )


def _mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores."""
    return torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
