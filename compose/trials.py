"""Trials: what was tried and what came out, one line of JSON each."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from loraloom.compose.errors import DamagedJob


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate, scored on the examples that the search may see.

    Attributes:
        trial: its number within its search, from 0.
        fold: which search: 0 is the one on all examples; with leave-one-out, fold k leaves the k-th example out.
        kind: "none", "single" and "mean" are the baselines, "search" is the optimiser's, "recommended" its last word.
        weights: the weight of each adapter, by its canonical name.
        loss: negative log-likelihood of all answers' tokens, in nats a token; of the rows scored so far if `bound`.
        objective: what is minimised: for the objective `loss`, loss + l1 * mean |weight|.
        bound: it was given up early; loss and objective are then what they are at least.
        seconds: that it took; of a population, its share.
    """

    trial: int
    fold: int
    kind: str
    weights: Mapping[str, float]
    loss: float
    objective: float
    bound: bool
    seconds: float

    def line(self) -> str:
        """The trial as one line of JSON, with its end; numbers read back as they were."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False) + "\n"


def read_trial(line: str) -> Trial:
    """The trial of one line; raises `DamagedJob`."""
    try:
        return Trial(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise DamagedJob(f"{line[:80]!r} is no trial: {error}. Start the job anew") from error
