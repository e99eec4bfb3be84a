"""From answers to figures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from loraloom.server.proxy.evaluation.arms import LARGE, LARGE_TUNED, SMALL_TUNED, arms_of, headline, proxy_key
from loraloom.server.proxy.evaluation.gap import Gain, Rights, closed, gained
from loraloom.server.proxy.evaluation.interval import mean, wilson
from loraloom.server.proxy.evaluation.plan import Plan
from loraloom.server.proxy.evaluation.result import Gap, Result, Score, Speed
from loraloom.server.proxy.evaluation.rounds import Round
from loraloom.server.proxy.evaluation.spec import HEADLINE
from loraloom.server.proxy.evaluation.task import Task


@dataclass(frozen=True)
class Measured:
    """What servers gave.

    Attributes:
        rounds: of all arms and tasks.
        speeds: tokens per second at a fixed length, of each round, by arm.
    """

    rounds: tuple[Round, ...] = ()
    speeds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __add__(self, other: "Measured") -> "Measured":
        return Measured((*self.rounds, *other.rounds), {**self.speeds, **other.speeds})

    def of(self, task: str, arm: str) -> list[Round]:
        """The rounds of one arm on one task, in the order of the questions."""
        return sorted((r for r in self.rounds if (r.task, r.arm) == (task, arm)), key=lambda r: r.first)


def result_of(plan: Plan, measured: Measured, about: Mapping[str, Any], *, complete: bool) -> Result:
    """The figures of what was measured so far, at least one arm on one task."""
    arms = arms_of(plan.spec)
    scores = {
        task.name: {arm.key: _score(task, rounds) for arm in arms if (rounds := measured.of(task.name, arm.key))}
        for task in plan.tasks
    }
    asked = [arm.key for arm in arms if any(arm.key in each for each in scores.values())]
    shared = tuple(name for name, each in scores.items() if all(key in each for key in asked))
    rights = {task.name: _rights(task, measured, plan.spec.alphas) for task in plan.tasks}
    gaps = {name: _gap([each], plan.spec.alphas) for name, each in rights.items() if each}
    return Result(
        complete=complete,
        about=about,
        labels={arm.key: arm.label for arm in arms},
        tasks=scores,
        shared=shared,
        means={key: _mean([scores[name][key] for name in shared]) for key in asked if shared},
        gains=_gained([task for task in plan.tasks if task.name in shared], measured),
        gaps=gaps,
        gap=_gap([rights[name] for name in gaps], plan.spec.alphas) if gaps else None,
        speeds={key: Speed(median(each), min(each), max(each)) for key, each in measured.speeds.items()},
    )


def _score(task: Task, rounds: Sequence[Round]) -> Score:
    answers, right = [answer for each in rounds for answer in each.asked.answers], _right(task, rounds)
    return Score(
        accuracy=wilson(sum(right), len(right)),
        n=len(right),
        prompt_tokens=fmean(answer.prompt_tokens for answer in answers),
        output_tokens=fmean(answer.output_tokens for answer in answers),
        cut=fmean(answer.cut for answer in answers),
        tokens_per_second=median(each.asked.tokens_per_second for each in rounds),
    )


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        accuracy=mean([score.accuracy for score in scores]),
        n=sum(score.n for score in scores),
        **{name: fmean(getattr(score, name) for score in scores) for name in _MEANS},
    )


_MEANS = ("prompt_tokens", "output_tokens", "cut", "tokens_per_second")


def _right(task: Task, rounds: Iterable[Round]) -> list[bool]:
    answers = [answer for each in rounds for answer in each.asked.answers]
    pairs = zip(task.questions, answers, strict=True)
    return [question.accepts(answer.text, task.spec.matcher, cut=answer.cut) for question, answer in pairs]


def _gained(tasks: Sequence[Task], measured: Measured) -> Mapping[str, Gain]:
    """What alpha 1 gains over the large model alone, and over the tuned small one; those that were measured."""
    right = {
        key: [_right(task, rounds) for task in tasks if (rounds := measured.of(task.name, key))]
        for key in (headline(), LARGE, SMALL_TUNED)
    }
    steered = right.pop(headline())
    return {key: gained(list(zip(each, steered, strict=True))) for key, each in right.items() if each and steered}


def _rights(task: Task, measured: Measured, alphas: Sequence[float]) -> Mapping[str, Rights]:
    """Which answers were right, by steered arm; empty where an arm that the gap needs was not measured."""
    rounds = {key: measured.of(task.name, key) for key in (LARGE, LARGE_TUNED, *map(proxy_key, alphas))}
    if not all(rounds.values()):
        return {}
    right = {key: _right(task, each) for key, each in rounds.items()}
    return {key: Rights(right[LARGE], right[key], right[LARGE_TUNED]) for key in map(proxy_key, alphas)}


def _gap(tasks: Sequence[Mapping[str, Rights]], alphas: Sequence[float]) -> Gap:
    """Over these tasks; of equally good strengths the one nearest to 1 counts as the best."""

    def merit(alpha: float) -> tuple[float, float]:
        return fmean(fmean(task[proxy_key(alpha)].proxy) for task in tasks), -abs(alpha - HEADLINE)

    best = max(alphas, key=merit)
    first, other = (closed([task[key] for task in tasks]) for key in (headline(), proxy_key(best)))
    return Gap(first, other, best)
