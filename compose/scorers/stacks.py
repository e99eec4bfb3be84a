"""A pool of adapters, stacked module by module: any number of candidates is mixed with a few matrix products."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from loraloom.adapters.arithmetic.factors import Factors
from loraloom.compose.errors import InvalidPool
from loraloom.compose.scorers.updates import OwnUpdate, SharedUpdate, Update


class Stack(Protocol):
    """One module's factors in every adapter that has it."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        ...

    def mixed(self, weights: Tensor) -> Update | None:
        """The updates of candidates, whose weights are [candidates, adapters of the pool]; None if all are zero."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ExactStack:
    """For sum_i w_i b_i a_i: the ranks of all adapters, one after the other.

    Attributes:
        a: [rank, in_features].
        b: [rank, out_features], transposed.
        owner: [rank], the adapter that each belongs to, by its place in the pool.
    """

    a: Tensor
    b: Tensor
    owner: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[1], self.a.shape[1]

    def mixed(self, weights: Tensor) -> SharedUpdate | None:
        scale = weights[:, self.owner]
        used = (scale != 0).any(dim=0)
        if not used.any():
            return None
        if used.all():
            return SharedUpdate(self.a, self.b, scale.to(self.a.dtype))
        return SharedUpdate(self.a[used], self.b[used], scale[:, used].to(self.a.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class LorahubStack:
    """For (sum_i w_i b_i)(sum_i w_i a_i), of adapters of one rank.

    Attributes:
        a: [adapters, rank * in_features].
        b: [adapters, rank * out_features], each transposed.
        owner: [adapters], their places in the pool.
        rank: of each.
        dtype: of what comes out.
    """

    a: Tensor
    b: Tensor
    owner: Tensor
    rank: int
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[1] // self.rank, self.a.shape[1] // self.rank

    def mixed(self, weights: Tensor) -> OwnUpdate | None:
        own = weights[:, self.owner]
        if not own.any():
            return None
        a, b = ((own @ factor).to(self.dtype).view(len(own), self.rank, -1) for factor in (self.a, self.b))
        return OwnUpdate(a, b)


def stacked(
    pool: Sequence[Mapping[str, Factors]], method: str, device: torch.device, dtype: torch.dtype
) -> Mapping[str, Stack]:
    """Every module's stack, by the module's path.

    Args:
        pool: each adapter's factors, by the module's path; what an adapter lacks is zero in it.
        method: "exact" or "lorahub".
        device, dtype: of the model that they are for.

    Raises:
        InvalidPool: an adapter's shapes in a module differ from another's; with "lorahub", its ranks.
    """
    make = _STACKS[method]
    stacks = {}
    for path in sorted({path for modules in pool for path in modules}):
        members = [(place, modules[path]) for place, modules in enumerate(pool) if path in modules]
        _check_shapes(path, [factors for _, factors in members])
        stacks[path] = make(path, members, device, dtype)
    return MappingProxyType(stacks)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are made in, for a model of a type."""
    return torch.promote_types(dtype, torch.float32)


_Members = Sequence[tuple[int, Factors]]


def _exact(path: str, members: _Members, device: torch.device, dtype: torch.dtype) -> Stack:
    a = torch.cat([factors.a.to(dtype) for _, factors in members])
    b = torch.cat([factors.b.T.to(dtype) for _, factors in members])
    owner = torch.tensor([place for place, factors in members for _ in range(factors.rank)])
    return ExactStack(a.to(device), b.to(device), owner.to(device))


def _lorahub(path: str, members: _Members, device: torch.device, dtype: torch.dtype) -> Stack:
    ranks = sorted({factors.rank for _, factors in members})
    if len(ranks) > 1:
        raise InvalidPool(
            f"lorahub adds the factors of adapters of one rank, and in {path} these have ranks "
            f"{', '.join(map(str, ranks))}: use the method exact, or bring them all to one rank first"
        )
    wide = at_least_float32(dtype)
    a = torch.stack([factors.a.to(wide).reshape(-1) for _, factors in members])
    b = torch.stack([factors.b.to(wide).T.reshape(-1) for _, factors in members])
    owner = torch.tensor([place for place, _ in members])
    return LorahubStack(a.to(device), b.to(device), owner.to(device), ranks[0], dtype)


_STACKS: Mapping[str, Callable[[str, _Members, torch.device, torch.dtype], Stack]] = MappingProxyType(
    {"exact": _exact, "lorahub": _lorahub}
)


def _check_shapes(path: str, members: Sequence[Factors]) -> None:
    shapes = sorted({(factors.b.shape[0], factors.a.shape[1]) for factors in members})
    if len(shapes) > 1:
        raise InvalidPool(
            f"{path} has different shapes (out, in) in these adapters, {' and '.join(map(str, shapes))}: "
            "only adapters of one base can be composed"
        )
