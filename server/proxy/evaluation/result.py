"""What a comparison has found: `result.json`, which the table and the picture are drawn from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loraloom.server.proxy.evaluation.gap import Closed, Gain
from loraloom.server.proxy.evaluation.interval import Share

OPTIMISTIC = (
    "What the best alpha closes is optimistic, as it was chosen on the test prompts themselves; alpha 1 was not."
)


@dataclass(frozen=True, slots=True)
class Score:
    """One arm on one task, or its means over tasks.

    Attributes:
        accuracy: the share of right answers.
        n: questions.
        prompt_tokens: of a question, in the mean.
        output_tokens: of an answer, in the mean.
        cut: the share of answers that `max_tokens` ended.
        tokens_per_second: written while questions were answered; the median over rounds.
    """

    accuracy: Share
    n: int
    prompt_tokens: float
    output_tokens: float
    cut: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second at a fixed length of answers: the median over rounds, the slowest and the fastest of them."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gap:
    """What steering closes of the gap to direct tuning.

    Attributes:
        headline: at alpha 1.
        best: at the alpha with the most right answers, see `OPTIMISTIC`.
        best_alpha: that alpha.
    """

    headline: Closed
    best: Closed
    best_alpha: float


@dataclass(frozen=True)
class Result:
    """Everything that was found.

    Attributes:
        complete: whether all servers were asked.
        about: the description, the models and the versions, as JSON has them.
        labels: of the arms, by their keys, in the order of the report.
        tasks: scores by task, then by arm.
        shared: the tasks that every arm took.
        means: over these tasks, by arm.
        gains: of the headline arm over others, in the mean over these tasks, by the other's key.
        gaps: by task; those without a tuned large model have none.
        gap: of the means over these tasks, or None.
        speeds: by arm.
    """

    complete: bool
    about: Mapping[str, Any]
    labels: Mapping[str, str]
    tasks: Mapping[str, Mapping[str, Score]]
    shared: tuple[str, ...]
    means: Mapping[str, Score]
    gains: Mapping[str, Gain]
    gaps: Mapping[str, Gap]
    gap: Gap | None
    speeds: Mapping[str, Speed]

    def text(self) -> str:
        """As JSON, with a remark on what is optimistic."""
        value = {**asdict(self), "remark": OPTIMISTIC}
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
