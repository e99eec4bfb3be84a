"""Updates of a smaller rank, by singular values (Eckart and Young, 1936: https://doi.org/10.1007/BF02288367)."""

from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.factors import Factors, Mixed

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 2.0**-23
"""Singular values up to this share of an update's size are taken for rounding errors and dropped: float32's epsilon,
twice the relative error that the numbers of a weighted b may have. The factors, being float32, could hold no less."""


def truncated(factors: Factors, rank: int | None) -> Mixed:
    """The nearest update of at most this rank and no more than its numerical rank, from matrices of the rank's size.

    With QR of b and of a^T, the singular values of b a are those of the small core between them. Not counted are those
    up to `TOLERANCE` times the sum of |b_k| |a_k| over the components k: that bounds what rounding did to the update,
    also where components cancel, and however their sizes are split between b and a.

    Args:
        factors: of any rank and types.
        rank: at least 1; None for the numerical rank.

    Returns:
        float32 factors, with the square root of the singular values on each; rank 1 of zeros for an update of rank 0.
        `discarded` is that of all singular values dropped, in float64.
    """
    import torch

    assert rank is None or rank >= 1
    b, a = factors.b.double(), factors.a.double()
    left, right = torch.geqrf(b), torch.geqrf(a.T)
    u, s, v = torch.linalg.svd(_triangle(left[0]) @ _triangle(right[0]).T, full_matrices=False)
    keep = _kept(s, float((b.norm(dim=0) * a.norm(dim=1)).sum()), rank)
    balanced = _balanced(_rotated(*left, u[:, :keep]), s[:keep], _rotated(*right, v[:keep].T).T)
    return Mixed(balanced, float(s[keep:].norm()))


def truncated_dense(update: "Tensor", rank: int) -> Mixed:
    """The nearest update of at most this rank and no more than its numerical rank, from the update itself.

    The singular vectors of its shorter side are the eigenvectors of its Gram matrix: several times faster than an SVD
    of the whole, and in float64 right to more than float32's digits.

    Args:
        update: [out_features, in_features], float64.
        rank: at least 1.

    Returns:
        As `truncated` does.
    """
    import torch

    assert rank >= 1
    if update.shape[0] > update.shape[1]:
        mirrored = truncated_dense(update.T, rank)
        a, b = mirrored.factors.b.T, mirrored.factors.a.T
        return Mixed(Factors(a.contiguous(), b.contiguous()), mirrored.discarded)
    scale = update.abs().max().clamp(min=torch.finfo(update.dtype).tiny)
    scaled = update / scale  # whose squares are within float64's range
    u = torch.linalg.eigh(scaled @ scaled.T).eigenvectors.flip(1)[:, :rank]
    s = (u.T @ scaled).norm(dim=1)
    keep = _kept(s, float(scaled.norm()), rank)
    u, s = u[:, :keep], s[:keep]
    rows = u.T @ scaled
    discarded = (scaled - u @ rows).norm() * scale
    return Mixed(_balanced(u, s * scale, rows / s[:, None]), float(discarded))


def _triangle(reflectors: "Tensor") -> "Tensor":
    """R, from what geqrf returns."""
    return reflectors[: min(reflectors.shape)].triu()


def _rotated(reflectors: "Tensor", taus: "Tensor", columns: "Tensor") -> "Tensor":
    """Q times the columns, from what geqrf returns: Q itself would take as long to form as R takes."""
    import torch

    padded = columns.new_zeros(len(reflectors), columns.shape[1])
    padded[: len(columns)] = columns
    return torch.ormqr(reflectors[:, : len(taus)], taus, padded)


def _kept(s: "Tensor", size: float, rank: int | None) -> int:
    """How many singular values stay."""
    numerical = int((s > TOLERANCE * size).sum())
    return numerical if rank is None else min(rank, numerical)


def _balanced(u: "Tensor", s: "Tensor", v: "Tensor") -> Factors:
    """u diag(s) v as float32 factors of like sizes, laid out by rows; without singular values, zeros of rank 1.

    Args:
        u: [out_features, rank].
        s: [rank].
        v: [rank, in_features].
    """
    if not len(s):
        return Factors(v.new_zeros(1, v.shape[1]).float(), u.new_zeros(u.shape[0], 1).float())
    root = s.sqrt()
    return Factors((root[:, None] * v).float().contiguous(), (u * root).float().contiguous())
