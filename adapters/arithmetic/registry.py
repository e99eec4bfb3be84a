"""The function of each method of mixing, by its name."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from loraloom.adapters.arithmetic.dare import dare_linear, dare_ties
from loraloom.adapters.arithmetic.exact import exact
from loraloom.adapters.arithmetic.factors import Factors, Mixed, Term
from loraloom.adapters.arithmetic.lorahub import lorahub
from loraloom.adapters.arithmetic.svd import svd
from loraloom.adapters.arithmetic.ties import ties
from loraloom.adapters.errors import InvalidMixture
from loraloom.adapters.methods import METHODS, Method

FUNCTIONS: Mapping[str, Callable[..., Mixed]] = MappingProxyType(
    {
        "exact": exact,
        "lorahub": lorahub,
        "svd": svd,
        "ties": ties,
        "dare_linear": dare_linear,
        "dare_ties": dare_ties,
    }
)
"""One for each of `methods.METHODS`, whose parameters it takes by keyword after the terms."""


def combine(method: Method, terms: Sequence[Term], module: str) -> Mixed:
    """One module's update in a mixture.

    Args:
        method: how to mix.
        terms: at least one; the adapters that have this module.
        module: its path, by which each module gets a random mask of its own.

    Raises:
        InvalidMixture: the method does not take these ranks; or the weights are so large that the outcome leaves
            float32's range.
    """
    import torch

    assert terms, "a mixture has a term"
    assert len({(len(term.factors.b), term.factors.a.shape[1]) for term in terms}) == 1, "terms are of one module"
    try:
        mixed = FUNCTIONS[method.name](terms, **_arguments(method, module))
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # (public, but not listed); from infinite numbers
        raise _overflow(module) from None
    if not _largest(mixed.factors) < torch.finfo(torch.float32).max:
        raise _overflow(module)
    return mixed


def _arguments(method: Method, module: str) -> dict[str, float]:
    """The method's parameters; a seed is mixed with the module's path."""
    arguments = dict(method.parameters)
    if "seed" in METHODS[method.name]:
        salted = hashlib.sha256(f"{arguments.get('seed', 0)} {module}".encode()).digest()
        arguments["seed"] = int.from_bytes(salted[:8]) >> 1  # within the range of torch's seeds
    return arguments


def _largest(factors: Factors) -> float:
    """A bound of the update's numbers; NaN if any of the factors' numbers is."""
    import torch

    bound = float(factors.rank)
    for factor in (factors.a, factors.b):
        low, high = torch.aminmax(factor)
        bound *= max(-low.item(), high.item())
    return bound


def _overflow(module: str) -> InvalidMixture:
    return InvalidMixture(f"the mixture leaves the range of float32 in {module}: use smaller weights")
