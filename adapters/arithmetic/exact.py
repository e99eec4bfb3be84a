"""The weighted sum of updates, with nothing left out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.factors import Factors, Mixed, Term

if TYPE_CHECKING:
    from torch import Tensor


def exact(terms: Sequence[Term]) -> Mixed:
    """sum_i w_i b_i a_i, by concatenating ranks: [w_1 b_1 | w_2 b_2 …] times the stacked a_i.

    The weights go wholly into b, so any signs are right. b keeps its type where every w b, of the weight as float32,
    has an exact form in it, and becomes float32 otherwise; terms of several types come out in one that holds them all.

    Args:
        terms: at least one, all of one module.
    """
    import torch

    a = torch.cat([term.factors.a for term in terms])
    b = torch.cat([term.factors.b for term in terms], dim=1)
    return Mixed(Factors(a, _weighted(b, [term.weight for term in terms for _ in range(term.factors.rank)])))


def _weighted(b: "Tensor", weights: Sequence[float]) -> "Tensor":
    """b with its columns times the weights.

    Like `normal.fold`, with all terms at once and in float32 throughout: in half the time, which requests wait for.
    """
    import torch

    wide = b * torch.tensor(weights, dtype=torch.float32)
    if b.dtype == wide.dtype:
        return wide
    narrow = wide.to(b.dtype)
    return narrow if torch.equal(narrow.to(wide.dtype), wide) else wide
