"""Updates written out: what methods work on that look at single numbers of dW."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.factors import Term

if TYPE_CHECKING:
    from torch import Tensor


def dense(term: Term) -> "Tensor":
    """w b a: [out_features, in_features], float64."""
    return term.factors.b.double() @ term.factors.a.double() * term.weight


def largest_rank(terms: Sequence[Term]) -> int:
    """The rank that a method's outcome is cut to unless another was asked for."""
    return max(term.factors.rank for term in terms)
