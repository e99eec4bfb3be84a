"""The optimisers by name: nevergrad's, each with how many candidates it is asked for at once.

nevergrad (Rapin and Teytaud 2018, https://github.com/facebookresearch/nevergrad) chooses other algorithms when the
number of workers changes, so both are fixed here: a job does the same on every machine.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from loraloom.compose.scoring import Weights

if TYPE_CHECKING:
    import nevergrad


@dataclass(frozen=True, slots=True)
class Kind:
    """One of nevergrad's optimisers.

    Attributes:
        about: what it is, in a few words.
        workers: candidates that it gives before it has to be told what came of them.
    """

    about: str
    workers: int


OPTIMIZERS: Mapping[str, Kind] = MappingProxyType(
    {
        "NGOpt": Kind("nevergrad's choice, the paper's; with few evaluations it is Cobyla", 1),
        "Cobyla": Kind("linear models in a trust region, one candidate after the other", 1),
        "CMA": Kind("covariance matrix adaptation", 8),
        "DiagonalCMA": Kind("the same without correlations", 8),
        "TwoPointsDE": Kind("differential evolution with two-point crossover", 8),
        "TBPSA": Kind("population size adaptation, for noisy objectives", 8),
        "PSO": Kind("particle swarm", 8),
        "RandomSearch": Kind("normal around the start, to compare with", 8),
    }
)
"""By nevergrad's own names."""

DEFAULT_OPTIMIZER = "Cobyla"


class Optimizer:
    """ask, tell and recommend, for bounded weights: the same seed and answers give the same questions."""

    def __init__(
        self, name: str, low: Sequence[float], high: Sequence[float], start: Sequence[float], seed: int, budget: int
    ) -> None:
        """
        Args:
            name: one of `OPTIMIZERS`.
            low, high: bounds of each weight.
            start: where to begin, within them.
            seed: of all randomness.
            budget: how often it will be asked, which some adapt to.
        """
        import nevergrad

        self._space = nevergrad.p.Array(init=list(start), lower=list(low), upper=list(high))
        self._space.random_state.seed(seed)
        self._optimizer = nevergrad.optimizers.registry[name](
            self._space, budget=budget, num_workers=OPTIMIZERS[name].workers
        )
        self._asked: dict[Weights, list[object]] = {}

    def ask(self) -> Weights:
        """The next candidate."""
        with _quiet():
            candidate = self._optimizer.ask()
        weights = _weights(candidate)
        self._asked.setdefault(weights, []).append(candidate)
        return weights

    def tell(self, weights: Weights, value: float) -> None:
        """What came of a candidate that was asked for: less is better."""
        with _quiet():
            self._optimizer.tell(self._asked[weights].pop(), value)

    def recommend(self) -> Weights:
        """What it holds for the best; not necessarily a candidate that it has asked for."""
        with _quiet():
            return _weights(self._optimizer.provide_recommendation())


@contextmanager
def _quiet() -> Iterator[None]:
    """nevergrad warns of what it does to its own optimisers: scipy's COBYLA gets a tolerance that scipy corrects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _weights(candidate: "nevergrad.p.Array") -> Weights:
    return tuple(float(value) for value in candidate.value)
