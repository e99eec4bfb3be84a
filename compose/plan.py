"""A job as it will be done: everything that can be refused is refused here, before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from loraloom.compose.encoder import Encoder, encoder_of
from loraloom.compose.errors import InvalidExamples, InvalidSpec
from loraloom.compose.examples import Example, inline, read_examples
from loraloom.compose.holdout import Holdout, hold_out
from loraloom.compose.objective import Question, Task
from loraloom.compose.pool import Adapters, Pool, find_pool
from loraloom.compose.spec import SERVED_RANK, JobSpec

MAX_TOKENS = 50_000_000
"""Of all rows together, the prompt counted with each of its answers."""
_NEEDED = ("nevergrad", "matplotlib", "jinja2", "httpx", "tqdm", "torch", "transformers")


@dataclass(frozen=True)
class Plan:
    """What a job does.

    Attributes:
        spec: as described, with its examples inline.
        pool: what may be combined.
        holdout: all examples, and which search sees which.
        task: all examples as rows, in the order of `holdout.examples`.
        encoder: makes rows of examples.
    """

    spec: JobSpec
    pool: Pool
    holdout: Holdout
    task: Task
    encoder: Encoder

    @property
    def adapters(self) -> int:
        """How many a search combines."""
        return self.spec.pool.preselect or len(self.pool.members)

    @property
    def rank(self) -> int | None:
        """The largest rank that the composition may have."""
        wanted = self.spec.publish.rank
        return SERVED_RANK if wanted == "auto" else wanted

    def within(self, context: int | None) -> "Plan":
        """The same where only so many tokens can be held; raises `InvalidExamples` if that is too few."""
        if context is None or context > self.encoder.context:
            return self
        if (longest := max(map(len, self.task.rows))) >= context:
            raise InvalidExamples(
                f"an example has {longest} tokens with its answer, and the server holds {context - 1}: leave it out, "
                "or start the server with a larger --max-model-len"
            )
        return replace(self, encoder=self.encoder.within(context - 1))

    def of(self, members: Sequence[int]) -> "Plan":
        """The same for a part of the pool, by index."""
        return replace(self, pool=Pool(tuple(self.pool.members[each] for each in members), self.pool.base))

    @property
    def trials(self) -> int:
        """Of all searches: the baselines, the budget, and the optimiser's recommendation."""
        return len(self.holdout.folds) * (self.adapters + 2 + self.spec.optimizer.budget + 1)


def with_examples(spec: JobSpec) -> JobSpec:
    """The same job with the examples of its files inline; raises `InvalidExamples`."""
    examples = tuple(inline(example) for example in read_examples(spec.examples))
    if isinstance(spec.holdout, str | float):
        return spec.model_copy(update={"examples": examples})
    held = tuple(inline(example) for example in read_examples(spec.holdout))
    return spec.model_copy(update={"examples": examples, "holdout": held})


def planned(spec: JobSpec, store: Adapters, pool: Pool | None = None) -> Plan:
    """What a job will do.

    Args:
        spec: the description.
        store: where the adapters are.
        pool: what was found before; by default it is looked up now.

    Raises:
        InvalidSpec, InvalidExamples, InvalidPool: and what to do about it.
        AdapterError: an adapter that is named is not there, or cannot be read.
    """
    _check_installed()
    holdout = _held_out(spec)
    if spec.publish.when != "never":
        store.check_free(spec.name, spec.publish.tag)
    _check_choices(spec, holdout)
    found = pool or find_pool(store, spec)
    encoder = encoder_of(found.base, spec.template)
    return Plan(spec, found, holdout, task_of(encoder, holdout.examples, spec.objective), encoder)


def _check_installed() -> None:
    """What is needed hours later, too."""
    if lacking := [name for name in _NEEDED if find_spec(name) is None]:
        raise InvalidSpec(f"{', '.join(lacking)} is not installed: `pip install 'loraloom[compose]'`")


def _held_out(spec: JobSpec) -> Holdout:
    examples, given = read_examples(spec.examples), spec.holdout
    holdout = given if isinstance(given, str | float) else read_examples(given)
    return hold_out(examples, holdout, spec.optimizer.seed)


def _check_choices(spec: JobSpec, holdout: Holdout) -> None:
    if spec.objective == "choice" and (lacking := [each for each in holdout.examples if not each.choices]):
        raise InvalidExamples(
            f'{len(lacking)} examples have no "choices" ({lacking[0].prompt[:60]!r}): the objective `choice` needs them'
        )


def task_of(encoder: Encoder, examples: Sequence[Example], objective: str, shots: Sequence[Example] = ()) -> Task:
    """Examples as rows, after solved examples in the prompt if there are any.

    Raises:
        InvalidExamples: one cannot be a row; or all together have more tokens than a job may.
    """
    questions, tokens = [], 0
    for example in examples:
        questions.append(_question(encoder, example, objective, shots))
        tokens += sum(map(len, questions[-1].rows))
        if tokens > MAX_TOKENS:
            raise InvalidExamples(
                f"the examples have more than {MAX_TOKENS:,} tokens, the prompt counted with each of its answers: give "
                "fewer or shorter ones, or fewer choices"
            )
    return Task(objective, tuple(questions))


def _question(encoder: Encoder, example: Example, objective: str, shots: Sequence[Example]) -> Question:
    if objective != "choice":
        return Question(encoder.rows(example, (example.answer,), shots))
    return Question(encoder.rows(example, example.choices, shots), example.choices.index(example.answer))
