"""Questions with the one answer that is expected, one JSON object a line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loraloom.server.proxy.evaluation.errors import InvalidEvaluation
from loraloom.server.proxy.evaluation.spec import Matcher

_FIELDS = {"prompt", "expected"}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what should be answered."""

    prompt: str
    expected: str

    def accepts(self, answer: str, matcher: Matcher, *, cut: bool = False) -> bool:
        """Whether an answer is right.

        Args:
            answer: white space around it, and around the expected one, does not count.
            matcher: how they are compared.
            cut: whether it would have gone on; such an answer is never exactly the expected one.
        """
        if cut and matcher == "exact":
            return False
        given, wanted = answer.strip(), self.expected.strip()
        if matcher == "contains":
            return wanted in given
        return given.startswith(wanted) if matcher == "prefix" else given == wanted


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions of a JSONL file.

    Raises:
        InvalidEvaluation: it cannot be read, with the line that is none; or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidEvaluation(f"{path} cannot be read as text: {error}") from error
    found = tuple(_question(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip())
    if not found:
        raise InvalidEvaluation(f'{path} is empty: give one a line, as {{"prompt": "…", "expected": "…"}}')
    return found


def _question(line: str, where: str) -> Question:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidEvaluation(f"{where} is no JSON: {error}") from error
    if not isinstance(value, Mapping) or set(value) != _FIELDS:
        raise InvalidEvaluation(f'{where}: write {{"prompt": "…", "expected": "…"}}, and nothing else')
    if not all(isinstance(text, str) and text.strip() for text in value.values()):
        raise InvalidEvaluation(f"{where}: prompt and expected are texts, and not empty")
    return Question(**value)
