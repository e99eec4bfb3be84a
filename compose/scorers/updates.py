"""What a population of candidates adds to one linear layer's output; tensors in, tensors out."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Update(Protocol):
    """The updates of a layer under several candidates."""

    def added(self, out: Tensor, x: Tensor) -> Tensor:
        """The layer's output with each candidate's update.

        Args:
            out: the layer's own output, [rows, …, out_features], which may be overwritten.
            x: its input, [rows, …, in_features]. The rows are those of the first candidate, of the second, and so on,
                as many of each.
        """
        ...

    def narrowed(self, candidates: Tensor) -> "Update":
        """The same for some of the candidates, given by their indices."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SharedUpdate:
    """sum_i w_i b_i a_i of candidates that differ in the scale of each rank only.

    Attributes:
        a: [rank, in_features], of all adapters.
        b: [rank, out_features], transposed.
        scale: [candidates, rank].
    """

    a: Tensor
    b: Tensor
    scale: Tensor

    def added(self, out: Tensor, x: Tensor) -> Tensor:
        inner = x.reshape(-1, x.shape[-1]) @ self.a.T
        # No view with -1: where no candidate uses any adapter of this layer the rank is 0.
        each = inner.view(len(self.scale), len(inner) // len(self.scale), len(self.a))
        inner = (each * self.scale[:, None]).view(inner.shape)
        return torch.addmm(out.reshape(-1, out.shape[-1]), inner, self.b).view(out.shape)

    def narrowed(self, candidates: Tensor) -> "SharedUpdate":
        return SharedUpdate(self.a, self.b, self.scale[candidates])


@dataclass(frozen=True, slots=True, eq=False)
class OwnUpdate:
    """b a of candidates that have their own of each.

    Attributes:
        a: [candidates, rank, in_features].
        b: [candidates, rank, out_features], transposed.
    """

    a: Tensor
    b: Tensor

    def added(self, out: Tensor, x: Tensor) -> Tensor:
        if len(self.a) == 1:
            inner = x.reshape(-1, x.shape[-1]) @ self.a[0].T
            return torch.addmm(out.reshape(-1, out.shape[-1]), inner, self.b[0]).view(out.shape)
        inner = torch.bmm(x.reshape(len(self.a), -1, x.shape[-1]), self.a.transpose(1, 2))
        return torch.baddbmm(out.reshape(len(self.a), -1, out.shape[-1]), inner, self.b).view(out.shape)

    def narrowed(self, candidates: Tensor) -> "OwnUpdate":
        return OwnUpdate(self.a[candidates], self.b[candidates])
