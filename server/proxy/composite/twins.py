"""One set of small weights, run as expert and antiexpert at once: both as rows of one batch.

The first half of the rows is the expert, which gets the requests' adapters; the second half is the antiexpert. All
layers but attention treat rows alike, so the weights are read once for both. Attention knows each half by a KV cache
of its own.
"""

from typing import Any

import torch
from torch import nn
from vllm.lora.layers import BaseLayerWithLoRA
from vllm.model_executor.layers.attention import Attention


class TwinAttention(nn.Module):
    """One attention layer for both halves of the rows, each with its own KV cache."""

    def __init__(self, expert: Attention, antiexpert: Attention) -> None:
        super().__init__()
        self.expert = expert
        self.antiexpert = antiexpert

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend within each half; every tensor is (2 * tokens, heads * head size)."""
        tokens = query.shape[0] // 2
        expert = self.expert(query[:tokens], key[:tokens], value[:tokens])
        antiexpert = self.antiexpert(query[tokens:], key[tokens:], value[tokens:])
        return torch.cat((expert, antiexpert))


def join_attention(expert: nn.Module, antiexpert: nn.Module) -> None:
    """Give every attention layer of `expert` that of `antiexpert` as its twin; the rest of the latter is not needed.

    Both are the same model, built under different names.
    """
    layers = [name for name, module in expert.named_modules() if isinstance(module, Attention)]
    if not layers:
        raise ValueError("the small model's attention is not vLLM's own: it cannot be run as expert and antiexpert")
    for name in layers:
        parent, _, leaf = name.rpartition(".")
        twin = TwinAttention(_attention(expert, name), _attention(antiexpert, name))
        setattr(expert.get_submodule(parent), leaf, twin)


def _attention(model: nn.Module, name: str) -> Attention:
    layer = model.get_submodule(name)
    assert isinstance(layer, Attention)
    return layer


class ExpertRows:
    """vLLM's punica wrapper for layers that see the rows of both: adapters reach the first half only.

    vLLM has mapped a step's tokens to adapters, and the first half of the rows are these tokens.
    """

    def __init__(self, wrapper: Any) -> None:
        """
        Args:
            wrapper: vLLM's `PunicaWrapperBase` of the platform.
        """
        self._wrapper = wrapper

    def add_lora_linear(self, y: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, for the first half of the rows; y is changed in place."""
        half = y.shape[0] // 2
        return self._wrapper.add_lora_linear(y[:half], x[:half], *args, **kwargs)

    def add_lora_logits(self, y: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, for the first half of the rows; y is changed in place."""
        half = y.shape[0] // 2
        return self._wrapper.add_lora_logits(y[:half], x[:half], *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapper, name)


class Twins:
    """The small model as expert and antiexpert in one pass."""

    def __init__(self, model: nn.Module, most: int) -> None:
        """
        Args:
            model: vLLM's, after `join_attention`.
            most: tokens of the largest step.
        """
        config: Any = model.config
        self._model: Any = model
        # CUDA graphs read their input where it was when they were captured.
        self._positions = torch.zeros(2 * most, dtype=torch.long)
        self._embedded = torch.zeros(2 * most, config.hidden_size)

    def hidden(self, input_ids: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of expert and antiexpert, (tokens, hidden) each, for (tokens,) ids and positions."""
        tokens = len(input_ids)
        embedded = _twice(self._embedded, self._model.embed_input_ids(input_ids))
        hidden = self._model(None, _twice(self._positions, positions), inputs_embeds=embedded)
        return hidden[:tokens], hidden[tokens:]

    def logits(self, expert: torch.Tensor, antiexpert: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Their logits, (rows, vocabulary) each; None on ranks that vLLM gathers none on."""
        logits = self._model.compute_logits(torch.cat((expert, antiexpert)))
        if logits is None:
            return None
        first, second = logits.chunk(2)
        return first, second

    def narrow_adapters(self) -> None:
        """Let adapters reach the expert only; vLLM has wrapped the layers for LoRA."""
        for layer in self._model.modules():
            if isinstance(layer, BaseLayerWithLoRA):
                layer.set_mapping(ExpertRows(layer.punica_wrapper))  # type: ignore[no-untyped-call]


def _twice(buffer: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The rows, and the same again behind them, in the beginning of a buffer."""
    count = len(rows)
    buffer[:count].copy_(rows)
    buffer[count : 2 * count].copy_(rows)
    return buffer[: 2 * count]
