"""Mixtures to draw for tests, and dense float64 references that share no code with what is tested."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from loraloom.adapters.arithmetic.factors import Factors, Term

SINGLE = 2.0**-23
"""Two roundings to float32, relative: of a weight and its product, or of both factors of a component."""
DOUBLE = 1e-13
"""Float64's epsilon times a few hundred additions."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WEIGHTS = st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.0]) | st.integers(-8000, 8000).map(lambda n: n / 1000)
SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 24)

seeded = settings(derandomize=True, deadline=None)
"""For `given`: the same examples in every run, however busy the machine is."""


def factors(rank: int, shape: tuple[int, int], seed: int, dtype: torch.dtype = torch.float32) -> Factors:
    """Random factors of an update of this shape, [out_features, in_features]."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, shape[1], generator=generator).to(dtype)
    return Factors(a, torch.randn(shape[0], rank, generator=generator).to(dtype))


@st.composite
def mixtures(draw: st.DrawFn, one_rank: bool = False, weights: st.SearchStrategy[float] = WEIGHTS) -> list[Term]:
    """One to four terms of one shape: any ranks up to 8, also above the shape's, any types and weights."""
    shape = (draw(SIDES), draw(SIDES))
    ranks = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    ranks = [ranks[0]] * len(ranks) if one_rank else ranks
    return [Term(draw(weights), factors(rank, shape, draw(SEEDS), draw(st.sampled_from(DTYPES)))) for rank in ranks]


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


def update(factors: Factors) -> np.ndarray:
    """b a, in float64."""
    return double(factors.b) @ double(factors.a)


def updates(terms: Sequence[Term]) -> list[np.ndarray]:
    """Each w b a, in float64."""
    return [term.weight * update(term.factors) for term in terms]


def size(terms: Sequence[Term]) -> float:
    """What errors are relative to, since terms may cancel: the sum of |w| |b| |a|; never zero."""
    norm = np.linalg.norm
    return 1e-30 + sum(abs(t.weight) * norm(double(t.factors.b)) * norm(double(t.factors.a)) for t in terms)


def distance(ours: Factors, reference: np.ndarray) -> float:
    """The Frobenius norm of the difference."""
    assert (ours.b.shape[0], ours.a.shape[1]) == reference.shape
    return float(np.linalg.norm(update(ours) - reference))


def optimum(dense: np.ndarray, rank: int) -> float:
    """How far the nearest update of that rank is: by Eckart and Young, the norm of the other singular values."""
    return float(np.linalg.norm(np.linalg.svd(dense, compute_uv=False)[rank:]))
