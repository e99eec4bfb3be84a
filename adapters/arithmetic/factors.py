"""What the arithmetic works on: one module's low-rank update, and a method's outcome for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """One module's update dW = b @ a, every scaling folded in.

    Attributes:
        a: [rank, in_features].
        b: [out_features, rank].
    """

    a: "Tensor"
    b: "Tensor"

    def __post_init__(self) -> None:
        assert self.a.ndim == self.b.ndim == 2, "a and b are matrices"
        assert self.a.shape[0] == self.b.shape[1], "a and b have one rank"

    @property
    def rank(self) -> int:
        """Columns of b, rows of a."""
        return int(self.a.shape[0])


@dataclass(frozen=True, slots=True)
class Term:
    """One adapter's update of a module, and its weight in the mixture."""

    weight: float
    factors: Factors


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a method makes of one module.

    Attributes:
        factors: of the mixture.
        discarded: Frobenius norm of what truncation has left out; 0 where nothing was truncated. What is left out is
            orthogonal to what is kept, so |whole|^2 = |kept|^2 + discarded^2.
    """

    factors: Factors
    discarded: float = 0.0
