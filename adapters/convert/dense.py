"""The nearest updates of low rank to a whole matrix, and the rank that they need.

Eckart and Young, 1936: https://doi.org/10.1007/BF02288367
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.factors import Factors

if TYPE_CHECKING:
    from torch import Tensor

ChooseRank = Callable[["Tensor"], int]
"""From squared singular values in descending order to the number of them that is kept."""


def truncate(update: "Tensor", choose: ChooseRank) -> Factors:
    """The matrix of the chosen rank that is nearest to `update`.

    The singular vectors of the shorter side are the eigenvectors of the Gram matrix, several times faster than an SVD;
    in float64 they are right to more than float32's digits, which is what the factors are rounded to.

    Args:
        update: [out_features, in_features], float64, not zero.
        choose: the rank.

    Returns:
        float32 factors, with the square root of the singular values on each.
    """
    import torch

    if update.shape[0] > update.shape[1]:
        mirrored = truncate(update.T, choose)
        return Factors(mirrored.b.T, mirrored.a.T)
    scaled = update / update.abs().max()  # whose squares are within float64's range
    squares, vectors = torch.linalg.eigh(scaled @ scaled.T)
    rank = choose(squares.flip(0).clamp(min=0))
    u = vectors.flip(1)[:, :rank]
    rows = u.T @ update
    root = rows.norm(dim=1).sqrt()
    return Factors((rows / root[:, None]).float(), (u * root).float())


def discarded(update: "Tensor", factors: Factors) -> float:
    """The Frobenius norm of what `factors` lack of `update`, in float64."""
    return float((update - factors.b.double() @ factors.a.double()).norm())


def numerical_rank(squares: "Tensor") -> int:
    """How many singular values are more than rounding errors, at least one.

    Those of the Gram matrix are of the size of its largest eigenvalue times epsilon, for each of its rows.

    Args:
        squares: squared singular values, descending.
    """
    import torch

    noise = len(squares) * torch.finfo(squares.dtype).eps * squares[0]
    return max(int((squares > noise).sum()), 1)


def energy_rank(squares: "Tensor", energy: float) -> int:
    """The smallest rank that keeps this share of the squared Frobenius norm, no more than the numerical rank.

    Args:
        squares: squared singular values, descending.
        energy: above 0, at most 1.
    """
    kept = squares.cumsum(0)
    enough = int((kept < energy * kept[-1]).sum()) + 1
    return min(enough, numerical_rank(squares))
