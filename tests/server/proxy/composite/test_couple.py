"""Two models of one shape side by side."""

import torch
from torch import nn

from loraloom.server.proxy.composite.couple import Couple


class Tiny(nn.Module):
    """As much of a model as vLLM's have: hidden states of ids and positions, and logits of hidden states."""

    def __init__(self, *, gathers: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)
        self._gathers = gathers

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.embedding(input_ids) + positions.unsqueeze(1)
        return hidden

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        return self.head(hidden) if self._gathers else None


def test_each_computes_with_its_own_weights() -> None:
    expert, antiexpert = Tiny(), Tiny()
    couple = Couple(expert, antiexpert)
    ids, positions = torch.tensor([1, 2, 3]), torch.arange(3)
    hidden = couple.hidden(ids, positions)
    logits = couple.logits(*hidden)
    assert logits is not None
    for model, own, found in zip((expert, antiexpert), hidden, logits, strict=True):
        assert torch.equal(own, model(ids, positions))
        assert torch.equal(found, model.head(own))
    assert not torch.equal(*logits)


def test_a_rank_that_gathers_no_logits_has_none() -> None:
    hidden = torch.zeros(2, 4)
    assert Couple(Tiny(gathers=False), Tiny(gathers=False)).logits(hidden, hidden) is None
