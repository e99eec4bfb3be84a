"""LoRA on the CPU: no copies of A and B for every row, and an adapter costs its own rank, not the server's largest.

vLLM's own CPU path (vllm-project/vllm issues 48421 and 49656) makes such copies, and gives rows without an adapter
(index -1) the update of the last slot. Here a compiled kernel takes all rows of a layer at once. Where there is no
compiler, torch computes one matrix product for each adapter of a step.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import torch
from vllm.logger import init_logger
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from loraloom.server.kernels import install
from loraloom.server.kernels.factors import SlotFactors, Writes
from loraloom.server.kernels.grouping import Groups
from loraloom.server.kernels.native import CompiledLayer
from loraloom.server.kernels.products import TorchLayer, accumulate

logger = init_logger("vllm.loraloom.kernels")

_Method = TypeVar("_Method", bound=Callable[..., None])


def _eager(method: _Method) -> _Method:
    """Keeps a method out of compiled graphs, which would freeze the groups of the step they were traced in.

    vLLM 0.32 compiles no model with LoRA on the CPU. Should it ever, the result is its error message, not a
    request that gets another one's adapter.
    """
    reason = "the groups of rows change with every step"
    return cast(_Method, torch.compiler.disable(method, reason=reason))  # type: ignore[no-untyped-call]


class GroupedPunicaWrapperCPU(PunicaWrapperCPU):
    """Applies LoRA to the rows of a step, grouped by slot.

    All products are computed in float32 and added to the output once, whatever the model's dtype. Shapes are
    those of vLLM's layers: A is stacked as (slots, 1, max rank, input size) and B as (slots, 1, output size,
    max rank), one of each for every slice of a packed layer; x is (rows, input size) and y, changed in place,
    is (rows, output size).
    """

    def __init__(
        self, max_num_batched_tokens: int, max_batches: int, device: torch.device | str, **kwargs: Any
    ) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        # A forward pass before the first mapping looks rows up by these, which nobody has set yet.
        self._embeddings_indices.zero_()
        self._tokens = self._samples = Groups(torch.empty(0, dtype=torch.long))
        self._writes = Writes()
        self._kernel = install.kernel()
        self._torch = SlotFactors(TorchLayer, self._writes)
        self._compiled = (
            SlotFactors(partial(CompiledLayer, self._kernel), self._writes) if self._kernel else self._torch
        )

    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        """Takes over a step's mapping of rows to adapters, and groups tokens and sampled rows by slot."""
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self._tokens = Groups(self.token_lora_indices)
        self._samples = Groups(self.sampler_indices)
        self._writes.note(lora_index_to_id)

    @_eager
    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds each row's update to a linear layer's output; `buffer`, scratch space, is not needed.

        Raises:
            ValueError: there are fewer rows than the step maps, so that nobody can tell whose they are.
        """
        y, x = _flat(y), _flat(x)
        self._add_updates(self._token_groups(len(x)), y, x, lora_a_stacked, lora_b_stacked, scale, output_slices)

    @_eager
    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds each sampled row's update to the logits; B and the logits may be padded differently."""
        y, x = _flat(y), _flat(x)
        width = min(lora_b_stacked.shape[-2], y.shape[-1])
        groups = self._sample_groups(len(x))
        self._add_updates(groups, y, x, (lora_a_stacked,), (lora_b_stacked,), scale, (width,))

    @_eager
    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """Adds each row's update to its embedding; x, (rows, max rank), are the rows of A of its tokens."""
        width = min(lora_b_stacked.shape[-2], y.shape[-1])
        self.add_expand(y, (x,), (lora_b_stacked,), (width,), add_inputs=add_inputs)

    @_eager
    def add_shrink(
        self,
        y: tuple[torch.Tensor, ...] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        """Sets each slice's buffer, (rows, rank), to `x @ A.T * scale`; rows without an adapter keep theirs.

        Used alone only where vLLM shards the factors too (`fully_sharded_loras`).
        """
        x = _flat(x)
        by_slot = self._token_groups(len(x)).by_slot
        x = by_slot.gather(x).float()
        for buffer, stacked in zip(y, lora_a_stacked, strict=True):
            shrunk = by_slot.gather(buffer)
            for segment in by_slot.segments:
                rows = slice(segment.start, segment.stop)
                a = stacked[segment.slot, 0].float()
                shrunk[rows, : len(a)] = torch.mm(x[rows], a.t()) * scale
            by_slot.put_back(buffer, shrunk)

    @_eager
    def add_expand(
        self,
        y: torch.Tensor,
        x: tuple[torch.Tensor, ...] | torch.Tensor,
        lora_b_stacked: tuple[torch.Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """Adds `x @ B.T` of each slice's buffer, (rows, rank), to its columns of y, or replaces them."""
        y = _flat(y)
        by_slot = self._token_groups(len(y)).by_slot
        out = by_slot.gather(y)
        offset = offset_start
        for buffer, stacked, width in zip(x, lora_b_stacked, output_slices, strict=True):
            shrunk = by_slot.gather(buffer).float()
            for segment in by_slot.segments:
                rows = slice(segment.start, segment.stop)
                target = out[rows, offset : offset + width]
                if not add_inputs:
                    target.zero_()
                accumulate(target, shrunk[rows], stacked[segment.slot, 0, :width].float().t())
            offset += width
        by_slot.put_back(y, out)

    def _add_updates(
        self,
        groups: Groups,
        y: torch.Tensor,
        x: torch.Tensor,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        scale: float,
        output_slices: Sequence[int],
    ) -> None:
        if not groups.used:
            return
        fits = self._kernel and self._kernel.takes(y, x, a_stacked[0])
        layer = (self._compiled if fits else self._torch).layer(a_stacked, b_stacked, output_slices)
        if layer.holds(groups.used):
            layer.add(y, x, groups, scale)

    def _token_groups(self, rows: int) -> Groups:
        """The groups of a layer's rows: rows beyond the mapping are padding and belong to nobody."""
        if rows >= self._tokens.rows:
            return self._tokens
        groups = self._tokens.spread(rows)
        if groups is None:
            raise ValueError(
                f"a layer computes {rows} rows of a step of {self._tokens.rows} that uses several adapters: "
                "this model cannot be served with LoRA on the CPU"
            )
        return groups

    def _sample_groups(self, rows: int) -> Groups:
        """The groups of sampled rows, or of one request's prompt: vLLM does not say which request's."""
        if rows == self._samples.rows:
            return self._samples
        groups = self._samples.spread(rows)
        if groups is None:
            logger.warning_once(
                "Prompt log-probabilities of a step that mixes adapters leave out what these adapters change "
                "in the output head (lm_head), if anything."
            )
            return Groups(torch.full((rows,), -1))
        return groups


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, x.shape[-1])
