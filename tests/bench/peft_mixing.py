"""Random adapters on layers of a model in peft, their mixture by peft, and what it should be in float64."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from loraloom.adapters.arithmetic.factors import Factors, Term
from loraloom.adapters.normal import fold

Shapes = Mapping[str, tuple[int, int]]
"""[out_features, in_features] of each module, by a name without dots."""

MIXTURE = "mixture"
ALPHA = 16


@dataclass(frozen=True)
class Adapter:
    """One of random numbers on every module, and its weight in the mixture."""

    rank: int
    weight: float
    rslora: bool = False

    @property
    def scaling(self) -> float:
        """By the definitions of LoRA and of rsLoRA: https://arxiv.org/abs/2312.03732"""
        return ALPHA / (math.sqrt(self.rank) if self.rslora else self.rank)

    def config(self, modules: Sequence[str]) -> LoraConfig:
        return LoraConfig(r=self.rank, lora_alpha=ALPHA, use_rslora=self.rslora, target_modules=list(modules))


@dataclass(frozen=True)
class Adapted:
    """Layers with adapters.

    Attributes:
        model: in which the adapters are called 0, 1, …
        adapters: in this order.
    """

    model: PeftModel
    adapters: tuple[Adapter, ...]

    @classmethod
    def random(cls, shapes: Shapes, adapters: tuple[Adapter, ...]) -> "Adapted":
        """Adapters whose components fall in size, on layers whose own weights nobody reads."""
        base = torch.nn.Module()
        for name, (outputs, inputs) in shapes.items():
            base.add_module(name, torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, bias=False))
        model = get_peft_model(base, adapters[0].config(list(shapes)), adapter_name="0")
        for number, adapter in enumerate(adapters[1:], start=1):
            model.add_adapter(str(number), adapter.config(list(shapes)))
        made, generator = cls(model, adapters), torch.Generator().manual_seed(0)
        for module in shapes:
            for _, a, b in made._given(module):
                a.normal_(std=a.shape[1] ** -0.5, generator=generator)
                b.normal_(std=0.01, generator=generator).div_(torch.arange(1, b.shape[1] + 1))
        return made

    def terms(self, module: str) -> list[Term]:
        """The adapters of a module in normal form."""
        return [Term(adapter.weight, Factors(a, fold(b, adapter.scaling))) for adapter, a, b in self._given(module)]

    def written_out(self, module: str) -> torch.Tensor:
        """What the mixture should be, [out_features, in_features], in float64."""
        given = self._given(module)
        whole = torch.zeros(given[0][2].shape[0], given[0][1].shape[1], dtype=torch.float64)
        for adapter, a, b in given:
            whole.addmm_(adapter.weight * adapter.scaling * b.double(), a.double())
        return whole

    def mix(self, combination: str, rank: int | None) -> None:
        """Have peft make the mixture, in place of the last one, which it would keep without a word.

        Raises:
            ValueError: peft refuses.
        """
        if MIXTURE in self.model.peft_config:
            self.model.delete_adapter(MIXTURE)
        names = [str(number) for number in range(len(self.adapters))]
        weights = [adapter.weight for adapter in self.adapters]
        self.model.add_weighted_adapter(names, weights, MIXTURE, combination_type=combination, svd_rank=rank)

    def mixture(self, module: str) -> Factors:
        """What peft made, with the scaling that it applies."""
        a, b = self._weights(module, MIXTURE)
        return Factors(a, b.double() * self._layer(module).scaling[MIXTURE])

    def _given(self, module: str) -> list[tuple[Adapter, torch.Tensor, torch.Tensor]]:
        return [(adapter, *self._weights(module, str(number))) for number, adapter in enumerate(self.adapters)]

    def _weights(self, module: str, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        layer = self._layer(module)
        return layer.lora_A[adapter].weight.data, layer.lora_B[adapter].weight.data

    def _layer(self, module: str) -> torch.nn.Module:
        return self.model.base_model.model.get_submodule(module)
