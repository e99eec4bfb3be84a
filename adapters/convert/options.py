"""How closely an adapter is converted, and what came of it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from loraloom.adapters.errors import InvalidAdapter

MAX_KL = 0.05
"""The largest default limit, in nats."""
MAX_SHARE = 0.1
"""The default limit as a share of what the adapter itself does: of KL(original || base). An adapter that does little on
the probe text could otherwise be replaced by nothing at all."""
ENERGY = 0.9
"""The share of each module's squared Frobenius norm that is kept by default, where the rank allows it."""
RANK_CAP = 64
"""The largest default rank."""


@dataclass(frozen=True)
class Options:
    """What the user allows a conversion to lose.

    Attributes:
        rank: of every converted module, at most. Not together with `energy`.
        energy: the share of each module's squared Frobenius norm to keep; the ranks follow from it.
        max_rank: no module gets a higher one.
        max_kl: the largest mean KL(original || converted) of the predictions on the probe text, in nats. By default
            `MAX_SHARE` of KL(original || base) there, and no more than `MAX_KL`.
        probe: the user's own text; the built-in one if None.
    """

    rank: int | None = None
    energy: float | None = None
    max_rank: int = 256
    max_kl: float | None = None
    probe: Path | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise InvalidAdapter("give either a rank or an energy for the conversion, and not both")
        if self.max_rank < 1:
            raise InvalidAdapter(f"the largest rank of a conversion is at least 1, and not {self.max_rank}")
        if self.rank is not None and not 1 <= self.rank <= self.max_rank:
            raise InvalidAdapter(f"the rank of a conversion is from 1 to {self.max_rank}, and not {self.rank}")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise InvalidAdapter(f"the energy of a conversion is above 0 and at most 1, and not {self.energy:g}")
        if self.max_kl is not None and not self.max_kl >= 0:
            raise InvalidAdapter(f"the largest KL of a conversion is not negative, as {self.max_kl:g} is")

    def kl_limit(self, base_kl: float) -> float:
        """The largest KL divergence that is accepted of an adapter with this KL(original || base)."""
        return min(MAX_KL, MAX_SHARE * base_kl) if self.max_kl is None else self.max_kl


DEFAULTS = Options()


@dataclass(frozen=True)
class Conversion:
    """What a conversion made, and how well.

    Attributes:
        kind: what was converted, such as "DoRA".
        exact: the update is the same, but for float32's rounding.
        rank: the largest of any module.
        relative_error: the Frobenius norm of what is lost, as a share of the whole update's, over all modules.
        kl: mean KL(original || converted) of the next-token distributions on the probe text, in nats.
        base_kl: the same of the base without any adapter: what the adapter does on that text at all.
        top1: the share of the probe text's positions at which both find the same token most likely.
        tokens: the number of those positions.
        modules: how many were converted; those that the adapter leaves alone are not counted.
        probe: which text: "built-in", or the SHA-256 of the user's own.
    """

    kind: str
    exact: bool
    rank: int
    relative_error: float
    kl: float | None
    base_kl: float | None
    top1: float | None
    tokens: int
    modules: int
    probe: str

    def as_json(self) -> dict[str, object]:
        """The same as plain values, for `json.dumps`."""
        return asdict(self)
