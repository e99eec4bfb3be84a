"""The held-out examples: the composition beside what it has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loraloom.compose.backends import Backend
from loraloom.compose.errors import InvalidExamples
from loraloom.compose.holdout import Fold
from loraloom.compose.objective import Task
from loraloom.compose.plan import Plan, task_of
from loraloom.compose.publication import truncates
from loraloom.compose.recorder import Choice
from loraloom.compose.result import HeldOut, Measured, Sample, System
from loraloom.compose.scoring import RowScore, Scorer, Weights
from loraloom.compose.search import Found

SAMPLES = 4
"""Held-out examples whose answers are shown."""
LONGEST = 128
"""Tokens of an answer that is shown."""


@dataclass(frozen=True, slots=True)
class Searched:
    """One search, and what it found."""

    fold: Fold
    choice: Choice
    found: Found

    @property
    def composition(self) -> Weights:
        """As weights of the whole pool."""
        return self.choice.whole(self.found.weights)

    @property
    def others(self) -> Mapping[System, Weights]:
        """What it has to beat, as weights of the whole pool."""
        size = len(self.choice.picks)
        single = tuple(float(each == self.found.single) for each in range(size))
        given: Mapping[System, Weights] = {
            "nothing": (0.0,) * size,
            "best_single": single,
            "mean": (1 / size,) * size,
        }
        return {system: self.choice.whole(weights) for system, weights in given.items()}

    @property
    def single(self) -> str:
        """The best adapter alone."""
        return self.choice.names[self.choice.picks[self.found.single]]


@dataclass
class Tally:
    """One system's scores, example by example."""

    detail: str = ""
    measured: list[Measured] = field(default_factory=list)
    losses: list[Measured] = field(default_factory=list)
    exact: list[float] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)

    def add(self, task: Task, scores: Sequence[RowScore]) -> None:
        """Count some examples."""
        self.measured += task.measured(scores)
        self.losses += Task("loss", task.questions).measured(scores)
        self.exact += [one.exact(part) for one, part in task.each(scores)]
        self.prompt_tokens += [len(each.rows[each.right].prompt) for each in task.questions]

    def held_out(self) -> HeldOut:
        """As the result has it."""
        from loraloom.compose.verdict import scored

        (score, low, high), (loss, _, _), examples = scored(self.measured), scored(self.losses), len(self.exact)
        exact, prompt_tokens = sum(self.exact) / examples, sum(self.prompt_tokens) / examples
        return HeldOut(score, low, high, loss, exact, prompt_tokens, self.detail)


def tallied(plan: Plan, searched: Sequence[Searched], backend: Backend) -> dict[System, Tally]:
    """Score all systems on all held-out examples.

    With examples in its prompt the base model is left out where its context does not hold them all.

    Args:
        plan: the job.
        searched: its searches; those that hold nothing out are passed over.
        backend: scores.
    """
    judged = [each for each in searched if each.fold.held]
    tallies: dict[System, Tally] = {"composition": Tally()}
    scorer = backend.scorer(plan.pool.members)
    known: list[dict[Weights, list[RowScore]]] = []
    for each in judged:
        task = plan.task.only(each.fold.held)
        scores = dict(zip(each.others, scorer.score(list(each.others.values()), task.rows), strict=True))
        known.append({each.others[system]: rows for system, rows in scores.items()})
        for system, rows in scores.items():
            tallies.setdefault(system, Tally()).add(task, rows)
    tallies["best_single"].detail = searched[0].single
    tallies["in_context"] = _in_context(plan, judged, scorer)
    for each, others in zip(judged, known, strict=True):
        task = plan.task.only(each.fold.held)
        tallies["composition"].add(task, _composed(plan, each, others, backend))
    return tallies


def samples(plan: Plan, searched: Sequence[Searched], backend: Backend) -> tuple[Sample, ...]:
    """What the systems answer to a few held-out examples, each under the search that did not see it."""
    judged = [each for each in searched if each.fold.held]
    share = -(-SAMPLES // len(judged))
    return tuple(sample for each in judged[:SAMPLES] for sample in _samples(plan, each, share, backend))


def _samples(plan: Plan, searched: Searched, count: int, backend: Backend) -> list[Sample]:
    examples = [plan.holdout.examples[index] for index in searched.fold.held[:count]]
    prompts = [plan.encoder.prompt(example) for example in examples]
    scorer, others = backend.scorer(plan.pool.members), searched.others
    shown: tuple[System, ...] = ("nothing", "best_single")
    limit = min(LONGEST, plan.encoder.context - max(map(len, prompts)))
    answers = {system: scorer.answers(others[system], prompts, limit) for system in shown}
    composition, weights = _composition(plan, searched, backend)
    answers["composition"] = composition.answers(weights, prompts, limit)
    texts = {system: [plan.encoder.text(each) for each in given] for system, given in answers.items()}
    return [
        Sample(example.prompt, example.answer, {system: given[place] for system, given in texts.items()})
        for place, example in enumerate(examples)
    ]


def _composed(
    plan: Plan, searched: Searched, others: Mapping[Weights, list[RowScore]], backend: Backend
) -> list[RowScore]:
    """The composition's scores; where it is one of the others, theirs, to the last bit."""
    if searched.composition in others and not _truncates(plan, searched):
        return others[searched.composition]
    scorer, weights = _composition(plan, searched, backend)
    return scorer.score([weights], plan.task.only(searched.fold.held).rows)[0]


def _truncates(plan: Plan, searched: Searched) -> bool:
    return truncates(plan, searched.choice.named(searched.found.weights))


def _composition(plan: Plan, searched: Searched, backend: Backend) -> tuple[Scorer, Weights]:
    """What scores the composition as it would be published."""
    members = plan.pool.members
    if plan.rank is None or not _truncates(plan, searched):
        return backend.scorer(members), searched.composition
    return backend.truncated(members, searched.composition, plan.rank)


def _in_context(plan: Plan, searched: Sequence[Searched], scorer: Scorer) -> Tally:
    """The base model with the examples that each search saw in its prompt: what a gain in format costs in tokens."""
    shots = len(searched[0].fold.seen)
    try:
        tasks = [_with_shots(plan, each.fold) for each in searched]
    except InvalidExamples as error:
        return Tally(f"left out: {error}")
    tally = Tally(f"{shots} examples in the prompt")
    nothing = (0.0,) * len(plan.pool.members)
    for task in tasks:
        tally.add(task, scorer.score([nothing], task.rows)[0])
    return tally


def _with_shots(plan: Plan, fold: Fold) -> Task:
    held, shots = ([plan.holdout.examples[index] for index in part] for part in (fold.held, fold.seen))
    return task_of(plan.encoder, held, plan.spec.objective, shots)
