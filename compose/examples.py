"""Examples: what is asked, and the one right answer. Read from JSONL, or given inline.

{"prompt": "Is this a city? Lima", "completion": "yes"}
{"messages": [{"role": "user", "content": "Is this a city? Lima"}, {"role": "assistant", "content": "yes"}]}
{"prompt": "Is this a city? Lima", "completion": "yes", "choices": ["yes", "no"]}
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraloom.compose.errors import InvalidExamples

ROLES = ("system", "user", "assistant", "tool")
MAX_BYTES = 64 * 2**20
MAX_CHOICES = 100
"""Of one example: each is a row of its own, which every candidate is scored on."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation, and the answer that is right.

    Attributes:
        turns: before the answer, at least one; a prompt is one turn of the user's.
        answer: what the assistant should say.
        choices: for the objective `choice`, what it may say, the answer among them; or empty.
    """

    turns: tuple[Turn, ...]
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """What is asked, as one text for people."""
        return "\n".join(turn.content for turn in self.turns)

    @property
    def key(self) -> str:
        """What two examples that ask the same have in common: the prompt, case and white space aside."""
        return " ".join(self.prompt.casefold().split())


def read_examples(source: Path | Sequence[Mapping[str, Any]]) -> tuple[Example, ...]:
    """The examples of a JSONL file, or given inline.

    Raises:
        InvalidExamples: with the line; or there is none.
    """
    if not isinstance(source, Path):
        return _parsed(enumerate(source, 1), "example")
    try:
        if source.stat().st_size > MAX_BYTES:
            raise InvalidExamples(
                f"{source} has more than {MAX_BYTES // 2**20} MiB: compose learns from a few examples"
            )
        lines = source.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidExamples(f"{source} cannot be read as text: {error}") from error
    values = ((number, _json(source, number, line)) for number, line in enumerate(lines, 1) if line.strip())
    return _parsed(values, f"{source}, line")


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 of the examples in their order, in hex digits."""
    text = json.dumps([asdict(example) for example in examples], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def inline(example: Example) -> dict[str, Any]:
    """The example as it is given inline."""
    turns = [asdict(turn) for turn in example.turns]
    choices = {"choices": list(example.choices)} if example.choices else {}
    return {"messages": [*turns, {"role": "assistant", "content": example.answer}], **choices}


def _parsed(values: Iterable[tuple[int, object]], where: str) -> tuple[Example, ...]:
    examples = tuple(_example(value, f"{where} {number}") for number, value in values)
    if not examples:
        raise InvalidExamples('there are no examples: give one a line, as {"prompt": "…", "completion": "…"}')
    return examples


def _json(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidExamples(f"{path}, line {number} is no JSON: {error}") from error


def _example(value: object, where: str) -> Example:
    if not isinstance(value, Mapping):
        raise InvalidExamples(f'{where} is no JSON object: write {{"prompt": "…", "completion": "…"}}')
    if unknown := sorted(set(value) - {"prompt", "completion", "messages", "choices"}):
        raise InvalidExamples(
            f"{where} has {', '.join(unknown)}: there are only prompt, completion, messages and choices"
        )
    _check_text(value, where)
    turns, answer = _conversation(value, where) if "messages" in value else _pair(value, where)
    if not answer.strip():
        raise InvalidExamples(f"{where} has an empty answer: there is nothing to learn from it")
    return Example(turns, answer, _choices(value.get("choices"), answer, where))


def _check_text(value: Mapping[str, object], where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # half of a surrogate pair, or no JSON
        raise InvalidExamples(f"{where} has what is no text: {error}") from error


def _pair(value: Mapping[str, object], where: str) -> tuple[tuple[Turn, ...], str]:
    prompt, completion = value.get("prompt"), value.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise InvalidExamples(f'{where} needs the texts "prompt" and "completion", or "messages"')
    if not prompt.strip():
        raise InvalidExamples(f"{where} has an empty prompt")
    return (Turn("user", prompt),), completion


def _conversation(value: Mapping[str, object], where: str) -> tuple[tuple[Turn, ...], str]:
    messages = value["messages"]
    if "prompt" in value or "completion" in value or not isinstance(messages, list | tuple) or len(messages) < 2:
        raise InvalidExamples(f'{where}: "messages" is a list of two or more, without prompt and completion beside it')
    turns = tuple(_turn(message, where) for message in messages)
    if turns[-1].role != "assistant":
        raise InvalidExamples(f"{where}: the last message is the right answer, so its role is assistant")
    return turns[:-1], turns[-1].content


def _turn(message: object, where: str) -> Turn:
    role, content = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
    if role not in ROLES or not isinstance(content, str):
        raise InvalidExamples(
            f'{where}: a message is {{"role": "user", "content": "…"}}, the role one of {", ".join(ROLES)}'
        )
    return Turn(str(role), content)


def _choices(value: object, answer: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(choice, str) for choice in value):
        raise InvalidExamples(f'{where}: "choices" is a list of texts')
    if len(value) > MAX_CHOICES:
        raise InvalidExamples(
            f'{where} has {len(value):,} "choices": give {MAX_CHOICES} at the most, the answer among them'
        )
    choices = tuple(str(choice) for choice in value)
    if len(set(choices)) != len(choices) or len(choices) < 2 or answer not in choices:
        raise InvalidExamples(f'{where}: "choices" are two or more different texts, and the completion is one of them')
    return choices
