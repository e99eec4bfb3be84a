"""TIES: trim, elect a sign, and take the mean of those that agree. Yadav et al., 2023: https://arxiv.org/abs/2306.01708"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.dense import dense, largest_rank
from loraloom.adapters.arithmetic.factors import Mixed, Term
from loraloom.adapters.arithmetic.truncate import truncated_dense

if TYPE_CHECKING:
    from torch import Tensor


def ties(terms: Sequence[Term], *, density: float, rank: int | None = None) -> Mixed:
    """TIES of the updates w_i b_i a_i, cut to a rank.

    As in the paper it is the mean of what agrees, where peft takes the sum: the same weight for all is the paper's
    lambda, 1 being a good start, and weights that add to 1 make the outcome small. The weights scale the updates
    before the election, so that a larger one counts for more in it; the paper has none there.

    Args:
        terms: at least one, all of one module.
        density: the share of each update's numbers that stays, the largest.
        rank: at least 1; by default the largest among the terms.
    """
    update = elected(trimmed(dense(term), density) for term in terms)
    return truncated_dense(update, rank or largest_rank(terms))


def trimmed(update: "Tensor", density: float) -> "Tensor":
    """The update with zeros for all but this share of its numbers, the largest; at least one, and all like it, stay."""
    sizes = update.abs().flatten().numpy()
    place = len(sizes) - max(1, round(density * len(sizes)))
    sizes.partition(place)  # in a third of the time of torch's kthvalue, and without its indices
    return update.masked_fill(update.abs() < float(sizes[place]), 0)  # NaN stays, for its cause to be seen


def elected(updates: Iterable["Tensor"]) -> "Tensor":
    """The mean of the numbers other than zero that have the sign of their sum; zero where the sum has none.

    One update is held at a time, beside the sums and counts of either sign.

    Args:
        updates: at least one, all of one shape.
    """
    import torch

    updates = iter(updates)
    first = next(updates)
    above, below = torch.zeros_like(first), torch.zeros_like(first)
    positive, negative = above.int(), below.int()
    for update in chain([first], updates):
        above += update.clamp(min=0)
        below += update.clamp(max=0)
        positive += update > 0
        negative += update < 0
    total = above + below
    otherwise = (below / negative.clamp(min=1)).where(total < 0, total)  # a total that is zero, or NaN
    return (above / positive.clamp(min=1)).where(total > 0, otherwise)
