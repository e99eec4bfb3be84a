"""Jobs without a model: each row has weights that are best for it."""

from collections.abc import Sequence
from typing import Any, cast

from loraloom.compose.encoder import Encoder
from loraloom.compose.errors import InvalidExamples
from loraloom.compose.examples import Example, read_examples
from loraloom.compose.holdout import hold_out
from loraloom.compose.objective import Question, Task
from loraloom.compose.plan import Plan
from loraloom.compose.pool import Member, Pool
from loraloom.compose.scoring import Row, RowScore, Scorer, Stop, Weights, never
from loraloom.compose.spec import spec_from


class BowlScorer:
    """A row's loss is 1 nat a token plus the squared distance from the row's best weights.

    Attributes:
        scored: every population that it was asked for.
    """

    def __init__(self, best: Sequence[Weights], lacking: Sequence[float] = ()) -> None:
        """
        Args:
            best: by the first token of a row's prompt, the weights that are best for it.
            lacking: likewise, what is added to its loss since other adapters are not there.
        """
        self._best = best
        self._lacking = lacking or [0.0] * len(best)
        self.scored: list[list[Weights]] = []
        self.rows = 0
        self.closed = False

    def score(self, population: Sequence[Weights], rows: Sequence[Row], stop: Stop = never) -> list[list[RowScore]]:
        self.scored.append(list(population))
        return [self._one(number, weights, rows, stop) for number, weights in enumerate(population)]

    def _one(self, number: int, weights: Weights, rows: Sequence[Row], stop: Stop) -> list[RowScore]:
        scores: list[RowScore] = []
        for row in rows:
            if scores and stop(number, scores):
                break
            self.rows += 1
            scores.append(self._row(weights, row))
        return scores

    def _row(self, weights: Weights, row: Row) -> RowScore:
        best = self._best[row.prompt[0]]
        loss = (
            1
            + self._lacking[row.prompt[0]]
            + sum((weight - wanted) ** 2 for weight, wanted in zip(weights, best, strict=True))
        )
        return RowScore(loss * len(row.answer), len(row.answer), loss < 1.1)

    def answers(self, weights: Weights, prompts: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
        return [[round(sum(weights))] for _ in prompts]

    def close(self) -> None:
        self.closed = True


class NumberEncoder:
    """An example whose prompt is "3" becomes the token 3, and any answer two tokens; a shot costs ten tokens."""

    def __init__(self, context: int = 1000) -> None:
        self.context = context

    def rows(self, example: Example, answers: Sequence[str], shots: Sequence[Example] = ()) -> tuple[Row, ...]:
        prompt = tuple(self.prompt(example, shots))
        if len(prompt) + 2 > self.context:
            raise InvalidExamples("too long")
        return tuple(Row(prompt, (5, 6)) for _ in answers)

    def prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        return [int(example.prompt), *[9] * 10 * len(shots)]

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


class BowlBackend:
    """`Backend` on a `BowlScorer`.

    Attributes:
        asked: the adapters of every scorer that it was asked for.
    """

    context: int | None = None

    def __init__(self, best: Sequence[Weights]) -> None:
        self._best = best
        self.asked: list[tuple[str, ...]] = []

    def scorer(self, members: Sequence[Member]) -> Scorer:
        names = tuple(member.adapter for member in members)
        self.asked.append(names)
        places = [int(name.partition("@")[0]) for name in names]
        lacking = [sum(best[place] ** 2 for place in range(len(best)) if place not in places) for best in self._best]
        return BowlScorer([tuple(best[place] for place in places) for best in self._best], lacking)

    def similarity(self, members: Sequence[Member], rows: Sequence[Row]) -> list[list[float]]:
        self.asked.append(tuple(member.adapter for member in members))
        return [
            [-self._best[row.prompt[0]][int(member.adapter.partition("@")[0])] for row in rows] for member in members
        ]

    def truncated(self, members: Sequence[Member], weights: Weights, rank: int) -> tuple[Scorer, Weights]:
        """What is truncated does nothing any more."""
        return self.scorer(members), (0.0,) * len(members)

    def close(self) -> None:
        pass


def bowl_plan(examples: int, adapters: int, encoder: NumberEncoder | None = None, **fields: Any) -> Plan:
    """A plan on adapters "0@1", "1@1" and so on, whose examples' prompts are "0", "1" and so on."""
    encoder = encoder or NumberEncoder()
    given = [{"prompt": str(number), "completion": "x"} for number in range(examples)]
    spec = spec_from({"examples": given, "optimizer": {"budget": 8}, **fields})
    holdout = hold_out(read_examples(spec.examples), spec.holdout, 0)  # type: ignore[arg-type]
    questions = tuple(Question(encoder.rows(example, ("x",))) for example in holdout.examples)
    members = tuple(Member(f"{number}@1", f"{number:064}", 4) for number in range(adapters))
    return Plan(spec, Pool(members, "base"), holdout, Task("loss", questions), cast(Encoder, encoder))
