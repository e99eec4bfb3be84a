"""The weighted sum of updates, cut to a rank."""

from collections.abc import Sequence

from loraloom.adapters.arithmetic.exact import exact
from loraloom.adapters.arithmetic.factors import Mixed, Term
from loraloom.adapters.arithmetic.truncate import truncated


def svd(terms: Sequence[Term], *, rank: int) -> Mixed:
    """The update of at most this rank that is nearest to sum_i w_i b_i a_i in the Frobenius norm.

    Eckart and Young, 1936: https://doi.org/10.1007/BF02288367

    Args:
        terms: at least one, all of one module.
        rank: at least 1.
    """
    return truncated(exact(terms).factors, rank)
