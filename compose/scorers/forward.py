"""One model's ways to run rows: what it understands is tried out once, before it is relied upon."""

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loraloom.compose.scorers.batches import Batch
from loraloom.compose.scorers.packed import common_prefix, packed
from loraloom.compose.scorers.padded import padded
from loraloom.compose.scoring import Row

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

_TRIED = (Row((1, 2, 3, 4, 5), (6, 7, 8)), Row((1, 2, 3, 9, 4, 8), (6, 7)), Row((1, 2, 3, 5), (2, 9, 3, 4)))
"""Rows of token ids that every vocabulary has, with a prefix in common."""
_ALL = 1000
"""A limit of tokens that is none."""
_WINDOWS = ("sliding_window", "attention_chunk_size")


class Forward:
    """Runs batches of rows through a model; the cache of a batch's common prefix serves the next one.

    Attributes:
        packs: whether the model gives the same for rows packed into one line, which not all architectures do.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model = model
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._window = _window(model)
        self.packs = self._gives_the_same_packed()

    def batch(self, rows: Sequence[Row], start: int, limit: int) -> Batch:
        """The next of these rows: as many as come to `limit` tokens for each candidate, but one at least."""
        if self._packable(rows):
            return packed(rows, start, limit, self._model.device, self._model.dtype)
        return padded(rows, start, limit, self._model.device)

    def cache(self, rows: Sequence[Row]) -> "Cache | None":
        """An empty one for what these rows have in common; None where that is nothing, or the model cannot share it."""
        return _empty() if self._packable(rows) and common_prefix(rows) else None

    def logits(self, batch: Batch, candidates: int, cache: "Cache | None") -> Tensor:
        """[candidates * lines, kept, vocabulary], in the model's type."""
        arguments = {**batch.arguments(candidates), "use_cache": cache is not None}
        if cache is not None:
            arguments["past_key_values"] = cache
        if self._keeps:
            arguments["logits_to_keep"] = batch.keep
        logits: Tensor = self._model(**arguments).logits
        return logits if self._keeps else logits[:, batch.keep]

    def _packable(self, rows: Sequence[Row]) -> bool:
        return self.packs and max(map(len, rows)) <= self._window

    @torch.inference_mode()
    def _gives_the_same_packed(self) -> bool:
        device, dtype = self._model.device, self._model.dtype
        plain = padded(_TRIED, 0, _ALL, device)
        lines = self.logits(plain, 1, None).flatten(0, 1)[plain.place].float()
        try:
            cache = _empty()
            first, rest = packed(_TRIED, 0, 1, device, dtype), packed(_TRIED, 1, _ALL, device, dtype)
            parts = [self.logits(first, 1, cache)[0, first.place]]
            shorten(cache, common_prefix(_TRIED))
            parts.append(self.logits(rest, 1, cache)[0, rest.place])
        except Exception:  # whatever an architecture that knows no such mask, positions or cache may raise
            return False
        return _close(torch.cat(parts).float(), lines, dtype)


def shorten(cache: "Cache", length: int, candidates: Sequence[int] | None = None) -> None:
    """Keep the first `length` tokens of a cache; and of its lines only some candidates', which have one each."""
    surplus = cache.get_seq_length() - length
    if surplus:
        cache.crop(-surplus)
    if candidates is not None:
        cache.batch_select_indices(torch.tensor(candidates))


def _empty() -> "Cache":
    from transformers import DynamicCache

    return DynamicCache()


def _window(model: "PreTrainedModel") -> float:
    """The length up to which every token sees all tokens before it."""
    config = model.config.get_text_config()
    windows = (getattr(config, name, None) for name in _WINDOWS)
    return min((window for window in windows if window), default=math.inf)


def _close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits agree as far as numbers of a type can."""
    spread = (expected.max() - expected.min()).item()
    return (found - expected).abs().max().item() <= 10 * math.sqrt(torch.finfo(dtype).eps) * spread
