"""Trials, each done once in a job's life: what an earlier run has written down is not scored again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loraloom.compose.errors import DamagedJob
from loraloom.compose.halving import halved
from loraloom.compose.log import TrialLog
from loraloom.compose.objective import Task
from loraloom.compose.scoring import RowScore, Scorer, Weights, never
from loraloom.compose.trials import Trial


@dataclass(frozen=True, slots=True)
class Choice:
    """The adapters that a search may use.

    Attributes:
        names: canonical names of all adapters of the pool.
        picks: the indexes of those that may be used, in the pool's order.
    """

    names: tuple[str, ...]
    picks: tuple[int, ...]

    def named(self, weights: Weights) -> dict[str, float]:
        """Weights of the picked adapters by their names."""
        return {self.names[pick]: weight for pick, weight in zip(self.picks, weights, strict=True)}

    def whole(self, weights: Weights) -> Weights:
        """Weights of the picked adapters as weights of all the pool's."""
        known = dict(zip(self.picks, weights, strict=True))
        return tuple(known.get(index, 0.0) for index in range(len(self.names)))


class Recorder:
    """`search.Evaluate` for one search: from the log as far as that goes, then from the scorer.

    A population that was written in part is scored again as a whole, since its members are computed together.
    """

    def __init__(
        self,
        scorer: Scorer,
        task: Task,
        choice: Choice,
        l1: float,
        log: TrialLog,
        fold: int,
        told: Callable[[Trial], None],
        halving: bool = False,
    ) -> None:
        """
        Args:
            scorer: of the whole pool.
            task: the examples that this search may see.
            choice: the adapters that it may use.
            l1: weight of the mean absolute weight in the objective.
            log: where trials are kept.
            fold: the search's number.
            told: of every trial; may raise to end the search.
            halving: score only the better half of what is searched on all examples.
        """
        self._scorer = scorer
        self._task = task
        self._choice = choice
        self._l1 = l1
        self._log = log
        self._fold = fold
        self._told = told
        self._halving = halving
        self._next = 0

    def __call__(self, kind: str, population: Sequence[Weights], incumbent: float | None = None) -> list[Trial]:
        """As `search.Evaluate`.

        Raises:
            DamagedJob: the log does not go with this job.
            OSError: the log cannot be written.
        """
        known = [self._log.get(self._fold, self._next + place) for place in range(len(population))]
        trials = [trial for trial in known if trial is not None]
        if len(trials) < len(population):
            trials = self._scored(kind, population, incumbent)
            self._log.append(trials)
        for trial, weights in zip(trials, population, strict=True):
            self._check(trial, weights)
            self._told(trial)
        self._next += len(population)
        return trials

    def _scored(self, kind: str, population: Sequence[Weights], incumbent: float | None) -> list[Trial]:
        penalties = [self._l1 * sum(map(abs, weights)) / len(weights) for weights in population]

        def hopeless(candidate: int, scores: Sequence[RowScore]) -> bool:
            assert incumbent is not None
            return self._task.value(scores) + penalties[candidate] > incumbent

        began = time.perf_counter()
        whole = [self._choice.whole(weights) for weights in population]
        stop = never if incumbent is None else hopeless
        if self._halving and kind == "search":
            scored = halved(self._scorer, self._task, whole, penalties, stop)
        else:
            scored = self._scorer.score(whole, self._task.rows, stop)
        seconds = round((time.perf_counter() - began) / len(population), 6)
        return [
            Trial(
                trial=self._next + place,
                fold=self._fold,
                kind=kind,
                weights=self._choice.named(weights),
                loss=self._task.loss(scores),
                objective=self._task.value(scores) + penalties[place],
                bound=len(scores) < len(self._task.rows),
                seconds=seconds,
            )
            for place, (weights, scores) in enumerate(zip(population, scored, strict=True))
        ]

    def _check(self, trial: Trial, weights: Weights) -> None:
        if trial.weights != self._choice.named(weights):
            raise DamagedJob(
                f"trial {trial.trial} of the log has other weights than this job asks for: another version of "
                "nevergrad or of this program has begun it. Start the job anew"
            )
