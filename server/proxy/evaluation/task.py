"""A task with its files read."""

import hashlib
from dataclasses import dataclass

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.questions import Question, read_questions
from loraloom.server.proxy.evaluation.spec import TaskSpec


@dataclass(frozen=True)
class Task:
    """What is asked, and what may help.

    Attributes:
        spec: as described.
        questions: that are asked.
        shots: examples to put into the prompt.
        digest: SHA-256 of the file of questions, in hex digits.
    """

    spec: TaskSpec
    questions: tuple[Question, ...]
    shots: tuple[Question, ...]
    digest: str

    @property
    def name(self) -> str:
        """In the results."""
        return self.spec.name


def read_task(spec: TaskSpec, shots: int) -> Task:
    """Read a task's files, and the first `shots` of its examples.

    Raises:
        InvalidEvaluation: a file cannot be read, has too few examples, or an example is also asked.
        OSError: a file went away.
    """
    questions = read_questions(spec.test)
    examples = read_questions(spec.shots)[:shots] if spec.shots and shots else ()
    if len(examples) < shots:
        raise InvalidEvaluation(f"{spec.shots} has {len(examples)} examples: add some, or ask for fewer `shots`")
    if told := {each.prompt for each in examples} & {each.prompt for each in questions}:
        raise InvalidEvaluation(f"{spec.shots} tells what {spec.test} asks ({min(told)[:60]!r}): take other examples")
    return Task(spec, questions, examples, hashlib.sha256(spec.test.read_bytes()).hexdigest())
