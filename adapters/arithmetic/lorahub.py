"""LoRAHub's element-wise composition."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.factors import Factors, Mixed, Term
from loraloom.adapters.errors import InvalidMixture

if TYPE_CHECKING:
    from torch import Tensor


def lorahub(terms: Sequence[Term]) -> Mixed:
    """(sum_i w_i b_i)(sum_i w_i a_i), at the rank of one adapter. Huang et al., 2023: https://arxiv.org/abs/2307.13269

    The paper's code adds raw A's and B's of adapters that share one scaling s, and scales the product once:
    s (sum w B)(sum w A). That is what comes out here, with b_i = s B_i. The normal form does not know how a b came to
    its size; so where scalings differ, each counts in full, and only in b: a cross term of adapters i and j has b_i's
    scaling, not the root of both.

    It is no weighted sum of updates: w and -w give the same; one adapter alone enters with w^2; and each adapter's b
    meets every other's a, in cross terms.

    Args:
        terms: at least one, all of one module and rank.

    Returns:
        float32 factors, summed in float64.

    Raises:
        InvalidMixture: the ranks differ.
    """
    ranks = sorted({term.factors.rank for term in terms})
    if len(ranks) > 1:
        raise InvalidMixture(
            f"lorahub adds the factors of adapters of one rank, and these have ranks {', '.join(map(str, ranks))}: "
            f"use exact, or svd(rank={ranks[-1]})"
        )
    a = _sum((term.weight, term.factors.a) for term in terms)
    b = _sum((term.weight, term.factors.b) for term in terms)
    return Mixed(Factors(a, b))


def _sum(weighted: Iterable[tuple[float, "Tensor"]]) -> "Tensor":
    import torch

    return torch.stack([weight * tensor.double() for weight, tensor in weighted]).sum(dim=0).float()
