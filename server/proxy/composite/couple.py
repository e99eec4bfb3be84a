"""Expert and antiexpert as two models, where a tuned small model is the expert."""

from typing import Any

import torch
from torch import nn


class Couple:
    """Two models of one shape, each with weights of its own."""

    def __init__(self, expert: nn.Module, antiexpert: nn.Module) -> None:
        """
        Args:
            expert: vLLM's model with the tuned weights; adapters reach it.
            antiexpert: the same with the untuned weights.
        """
        self._expert: Any = expert
        self._antiexpert: Any = antiexpert

    def narrow_adapters(self) -> None:
        """Nothing to do: adapters name the expert's modules."""

    def hidden(self, input_ids: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Twins.hidden`."""
        expert = self._expert(input_ids, positions).clone()  # the antiexpert may take the memory of it
        return expert, self._antiexpert(input_ids, positions)

    def logits(self, expert: torch.Tensor, antiexpert: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """As `Twins.logits`."""
        logits = self._expert.compute_logits(expert), self._antiexpert.compute_logits(antiexpert)
        return None if logits[0] is None else logits
