"""What a job has found: `result.json`, which the report is drawn from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

System: TypeAlias = Literal["composition", "nothing", "best_single", "mean", "in_context"]
"""What is compared on the held-out examples: the composition; the base model alone; the adapter that did best alone on
the examples; all adapters with the same weight, 1/n; the base model with the examples in its prompt."""

VerdictName: TypeAlias = Literal["better", "not better", "undecidable"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One system on one held-out example: `value` of `weight`, as nats of so many tokens, or 1 right answer of 1."""

    value: float
    weight: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One system on the held-out examples.

    Attributes:
        score: nats a token for the objective `loss` (less is better), else the share of right answers.
        low, high: 95% bootstrap interval of it over the examples.
        loss: nats a token.
        exact: share of answers that greedy decoding gives exactly.
        prompt_tokens: of a prompt, in the mean.
        detail: which adapter the best single one is; how many examples are in the prompt; why it was left out.
    """

    score: float
    low: float
    high: float
    loss: float
    exact: float
    prompt_tokens: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The composition against another system, paired by example; a positive gain means that the composition is better.

    Attributes:
        gain: difference of the scores.
        low, high: 95% bootstrap interval of it.
        p: one-sided p value of the sign-flip test that there is no gain.
    """

    gain: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the composition is worth anything.

    Attributes:
        name: "better" than each of nothing, the best single adapter and the mean; or not; or it cannot be told.
        examples: held-out examples that it rests on.
        reason: in one sentence.
    """

    name: VerdictName
    examples: int
    reason: str

    def __str__(self) -> str:
        if self.name != "undecidable":
            return self.name
        return f"undecidable with {self.examples} example{'s' if self.examples != 1 else ''}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out example, and what the systems answer to it (greedy decoding), as text."""

    prompt: str
    expected: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The composition.

    Attributes:
        weights: of each adapter, by its canonical name, in the pool's order.
        kind, trial: the trial that it comes from, as in `Trial`.
        loss, objective: on the examples that the search saw.
        expression: what requests may put into `model`.
        rank: of the published adapter, all redundancy removed; of what is not published, as far as is known.
        error: relative Frobenius error of truncation; None where it is truncated and not published.
    """

    weights: Mapping[str, float]
    kind: str
    trial: int
    loss: float
    objective: float
    expression: str
    rank: int
    error: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """All of it.

    Attributes:
        job: the job's id.
        name: of the adapter to publish.
        objective: as in the job's description; `held_out` scores are nats a token for "loss", else accuracies.
        chosen: the composition; with leave-one-out the one of the search on all examples.
        held_out: each system's score. With leave-one-out each example was scored by the search that did not see it.
        comparisons: the composition against each other system.
        verdict: what follows from them.
        samples: a few held-out examples.
        provenance: base, pool (canonical names, digests, ranks), method, scorer, optimizer with nevergrad's version,
            seed, the digest of the examples, how many were seen and held out, versions of torch and of this package.
        published: the canonical name of the new version; None where nothing was published.
        publication: why it was published, or not, in one sentence.
    """

    job: str
    name: str
    objective: str
    chosen: Chosen
    held_out: Mapping[System, HeldOut]
    comparisons: Mapping[System, Comparison]
    verdict: Verdict
    samples: tuple[Sample, ...]
    provenance: Mapping[str, Any]
    published: str | None = None
    publication: str = ""

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def result_from(text: str) -> Result:
    """The result that `Result.text` wrote."""
    values = json.loads(text)
    return Result(
        **{
            **values,
            "chosen": Chosen(**values["chosen"]),
            "held_out": {name: HeldOut(**each) for name, each in values["held_out"].items()},
            "comparisons": {name: Comparison(**each) for name, each in values["comparisons"].items()},
            "verdict": Verdict(**values["verdict"]),
            "samples": tuple(Sample(**each) for each in values["samples"]),
        }
    )
