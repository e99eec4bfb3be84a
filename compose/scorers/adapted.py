"""A model whose linear layers add what a population of candidates makes of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.compose.errors import InvalidPool
from loraloom.compose.scorers.stacks import Stack, at_least_float32, stacked
from loraloom.compose.scorers.updates import Update

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AdaptedLayer(nn.Module):
    """A linear layer, with an update while there is one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.update: Update | None = None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out if self.update is None else self.update.added(out, x)


class AdaptedModel:
    """A causal language model under candidates of one pool.

    Attributes:
        model: the model, whose layers are changed until `close`.
    """

    def __init__(self, model: "PreTrainedModel", pool: Sequence[Mapping[str, Factors]], method: str) -> None:
        """
        Raises:
            InvalidPool: the adapters do not fit the model or, for this method, each other.
        """
        self.model = model
        self._stacks = stacked(pool, method, model.device, model.dtype)
        self._adapters = len(pool)
        layers = {path: _layer(model, path, stack) for path, stack in self._stacks.items()}
        self._layers = {path: AdaptedLayer(layer) for path, layer in layers.items()}
        for path, layer in self._layers.items():
            model.set_submodule(path, layer)

    @contextmanager
    def under(self, population: Sequence[Sequence[float]]) -> Iterator["AdaptedModel"]:
        """The model under these candidates: its input holds as many rows of each, one candidate after the other."""
        assert all(len(weights) == self._adapters for weights in population), "a candidate weighs the whole pool"
        dtype = at_least_float32(self.model.dtype)
        weights = torch.tensor(population, dtype=dtype, device=self.model.device)
        try:
            for path, stack in self._stacks.items():
                self._layers[path].update = stack.mixed(weights)
            yield self
        finally:
            for layer in self._layers.values():
                layer.update = None

    def narrow(self, candidates: Sequence[int]) -> None:
        """Go on with some of the candidates, given by their places among those that there are now."""
        chosen = torch.tensor(candidates, device=self.model.device)
        for layer in self._layers.values():
            if layer.update is not None:
                layer.update = layer.update.narrowed(chosen)

    def close(self) -> None:
        """Give the model its own layers back."""
        for path, layer in self._layers.items():
            self.model.set_submodule(path, layer.layer)


def _layer(model: "PreTrainedModel", path: str, stack: Stack) -> nn.Module:
    """The model's linear layer of that path; raises `InvalidPool` if it has none, or one of another shape."""
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        raise InvalidPool(
            f"the base has no module {path}: compose adapters of this base, or name their own base"
        ) from None
    shape = _shape(layer)
    if shape is None:
        raise InvalidPool(f"{path} of the base is a {type(layer).__name__}: only linear layers can be composed")
    if shape != stack.shape:
        raise InvalidPool(
            f"{path} is {shape[0]} x {shape[1]} (out x in) in the base, and {stack.shape[0]} x {stack.shape[1]} in the "
            "adapters: compose adapters of this base, or name their own base"
        )
    return layer


def _shape(layer: nn.Module) -> tuple[int, int] | None:
    """(out_features, in_features) of a linear layer."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, Conv1D):
        return layer.nf, layer.nx
    return None
