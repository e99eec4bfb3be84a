"""The composite model: a large model, steered by the difference of a tuned and an untuned small one.

vLLM runs it as one model, so that everything works as with any other: continuous batching, prefix caching, LoRA, log
probabilities. Source: Liu et al. 2024, "Tuning Language Models by Proxy", arXiv:2401.08565.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.lora.layers import BaseLayerWithLoRA, VocabParallelEmbeddingWithLoRA
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.interfaces import SupportsLoRA
from vllm.sequence import IntermediateTensors

from loraloom.server.proxy import strength
from loraloom.server.proxy.composite.building import build_large, build_small, merged_packing, take_lora_off
from loraloom.server.proxy.composite.combine import combine
from loraloom.server.proxy.composite.couple import Couple
from loraloom.server.proxy.composite.twins import Twins, join_attention
from loraloom.server.proxy.pair import FIELD, Pair

LARGE, EXPERT, ANTIEXPERT = "large", "expert", "antiexpert"
"""The names of the three, with which the paths of their modules begin."""


class ProxyForCausalLM(nn.Module, SupportsLoRA):
    """logits = large + alpha * (expert - antiexpert), for every row of every step.

    What leaves `forward` for each token is one row: the last hidden states of the three side by side, then what its
    adapter says of alpha. So alpha follows its row through everything that selects rows before `compute_logits`.
    """

    embedding_modules = {"embed_tokens": "input_embeddings", "lm_head": "output_embeddings"}
    packed_modules_mapping: dict[str, list[str]] = {}

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config: Any = vllm_config.model_config.hf_config
        pair = self._pair = Pair.of(getattr(self.config, FIELD))
        rows = 2 if pair.expert is None else 1
        most = vllm_config.scheduler_config.max_num_batched_tokens
        large: Any = build_large(vllm_config, pair.large)
        expert: Any = build_small(vllm_config, pair.expert or pair.small, EXPERT, rows=rows)
        antiexpert: Any = build_small(vllm_config, pair.small, ANTIEXPERT, rows=rows)
        self.large, self.expert = large, expert
        self._two: Twins | Couple
        if pair.expert is None:
            join_attention(expert, antiexpert)
            self._two = Twins(expert, most)
        else:
            self.antiexpert = antiexpert
            self._two = Couple(expert, antiexpert)
        alpha: Any = ReplicatedLinear(1, 3, bias=False, prefix=strength.PATH, return_bias=False)
        alpha.weight.data.zero_()  # also where no checkpoint is loaded
        self.proxy_alpha = alpha
        self._widths = [each.config.hidden_size for each in (large, expert, expert)] + [3]
        # A client may send the number of a padding row of the large model: the small one has no such row.
        self._last_token = expert.config.vocab_size - 1
        self._tokens = torch.zeros(most, dtype=torch.int32)  # CUDA graphs read their input where it was first
        self.packed_modules_mapping = merged_packing(large, expert)
        self.make_empty_intermediate_tensors = large.make_empty_intermediate_tensors
        self.secondary_weights = tuple(_sources(pair))

    @property
    def lora_manager(self) -> Any:
        """vLLM's, which sets itself here when it has wrapped the layers that adapters can change."""
        return self._lora_manager

    @lora_manager.setter
    def lora_manager(self, manager: Any) -> None:
        self._lora_manager = manager
        # vLLM looks up adapters' embeddings by the large model's vocabulary; no stored adapter changes one.
        take_lora_off(self.expert, EXPERT, VocabParallelEmbeddingWithLoRA, manager)
        if self._pair.expert is not None:
            take_lora_off(self.antiexpert, ANTIEXPERT, BaseLayerWithLoRA, manager)
        self._two.narrow_adapters()

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The large model's embedding of (tokens,) ids; vLLM asks every model for it."""
        embedded: torch.Tensor = self.large.embed_input_ids(input_ids)
        return embedded

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The three models' last hidden states and alpha, (tokens, the sum of the widths), in the model's dtype."""
        # A copy: where each is compiled on its own, with CUDA graphs, the next may take the memory of its output.
        large = self.large(input_ids, positions).clone()
        tokens = self._tokens[: len(input_ids)].copy_(input_ids.clamp(max=self._last_token))
        expert, antiexpert = self._two.hidden(tokens, positions)
        alpha: Any = self.proxy_alpha
        said = alpha(torch.ones_like(large[:, :1]))
        return torch.cat((large, expert, antiexpert, said), dim=-1)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """The combined logits of selected rows of what `forward` returned, (rows, vocabulary) in float32."""
        parts = torch.split(hidden_states, self._widths, dim=-1)
        large, expert, antiexpert, said = (part.contiguous() for part in parts)
        logits = self.large.compute_logits(large)
        two = self._two.logits(expert, antiexpert)
        if logits is None or two is None:  # this rank only takes part in the computation
            return None
        return combine(logits, *two, self._alpha(said.float()))

    def _alpha(self, said: torch.Tensor) -> torch.Tensor:
        """The strength of each row, (rows, 1), from what adapters say of it, (rows, 3)."""
        high, low, given = torch.split(said, 1, dim=-1)
        return high + low + (strength.GIVEN - given) * self._pair.unadapted_alpha

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load the checkpoints, which come one after the other."""
        loaded = {f"{strength.PATH}.weight"}
        for name, group in groupby(weights, key=lambda weight: _owner(weight[0])):
            loaded |= {f"{name}.{each}" for each in getattr(self, name).load_weights(_relative(group, name))}
        for name in (EXPERT, *((ANTIEXPERT,) if self._pair.expert else ())):
            if not any(each.startswith(f"{name}.") for each in loaded):
                raise ValueError(f"the loader read no weights of the {name}: start with --load-format auto")
        return loaded


def _sources(pair: Pair) -> Iterator[DefaultModelLoader.Source]:
    """The checkpoints besides the large model's."""
    yield DefaultModelLoader.Source(pair.expert or pair.small, revision=None, prefix=_mark(EXPERT))
    if pair.expert is not None:
        yield DefaultModelLoader.Source(pair.small, revision=None, prefix=_mark(ANTIEXPERT))


def _mark(name: str) -> str:
    """What tells a small model's tensors from those of the large one, whose own names can be any."""
    return f"loraloom/{name}/"


def _owner(tensor: str) -> str:
    return next((name for name in (EXPERT, ANTIEXPERT) if tensor.startswith(_mark(name))), LARGE)


def _relative(weights: Iterable[tuple[str, torch.Tensor]], name: str) -> Iterator[tuple[str, torch.Tensor]]:
    return ((tensor.removeprefix(_mark(name)), value) for tensor, value in weights)
