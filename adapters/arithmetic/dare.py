"""DARE: drop numbers at random, and rescale the rest. Yu et al., 2023: https://arxiv.org/abs/2311.03099"""

import operator
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from loraloom.adapters.arithmetic.dense import dense, largest_rank
from loraloom.adapters.arithmetic.factors import Mixed, Term
from loraloom.adapters.arithmetic.ties import elected
from loraloom.adapters.arithmetic.truncate import truncated_dense

if TYPE_CHECKING:
    from torch import Tensor


def dare_linear(terms: Sequence[Term], *, density: float, rank: int | None = None, seed: int = 0) -> Mixed:
    """The sum of the updates w_i b_i a_i after DARE, cut to a rank; before the cut, its mean over seeds is their sum.

    Args:
        terms: at least one, all of one module.
        density: the chance of each number to stay; those that do are divided by it.
        rank: at least 1; by default the largest among the terms.
        seed: the same gives the same; modules should have different ones.
    """
    update = reduce(operator.add, dropped(terms, density, seed))
    return truncated_dense(update, rank or largest_rank(terms))


def dare_ties(terms: Sequence[Term], *, density: float, rank: int | None = None, seed: int = 0) -> Mixed:
    """TIES' election and mean of the updates w_i b_i a_i after DARE, which stands in for TIES' trimming, cut to a rank.

    Args and what weights do: as for `dare_linear` and `ties.ties`.
    """
    update = elected(dropped(terms, density, seed))
    return truncated_dense(update, rank or largest_rank(terms))


def dropped(terms: Sequence[Term], density: float, seed: int) -> Iterator["Tensor"]:
    """Each term's update after DARE, with a mask of its own."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for term in terms:
        update = dense(term)
        stays = torch.rand(update.shape, generator=generator) < density
        yield update * stays / density
