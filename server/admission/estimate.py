"""How much a request may take, told from its body before anything of it is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import SchemaValidator, core_schema

CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly; it is a reservation, which what is computed replaces."""
OUTPUT = 512
"""Tokens of an answer that says no bound of its own."""

_PROMPTS = ("messages", "input", "instructions", "system", "tools")
"""The fields of chat, responses and messages that become one prompt; `prompt` of completions may be several."""
_BOUNDS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_NOT_TEXT = frozenset(("type", "role", "id", "source", "data", "image_url", "input_audio", "video_url", "audio_url"))
_LONGEST = 100
_COUNT = SchemaValidator(core_schema.int_schema())
"""As the models by which the engine's server reads a body."""


@dataclass(frozen=True)
class Estimate:
    """What a request may take.

    Attributes:
        sequences: answers that are computed at a time: `n`, or the width of a beam, for each of its prompts.
        prompt: tokens of its prompts.
        output: tokens of all its answers, at most.
    """

    sequences: int
    prompt: int
    output: int

    @property
    def tokens(self) -> int:
        """Prompts and answers together."""
        return self.prompt + self.output


def estimate(body: Mapping[str, Any], output: int = OUTPUT) -> Estimate:
    """What a body of chat, completions, responses (OpenAI) or messages (Anthropic) asks for.

    Args:
        body: any JSON object; what cannot be understood counts as if it were not there: the engine's server will
            refuse it.
        output: tokens of an answer where the body does not say how many it may have.
    """
    prompts = _prompts(body.get("prompt"))
    each = [_tokens(prompt) for prompt in prompts] + [_tokens([body[name] for name in _PROMPTS if name in body])]
    sequences = max(1, _number(body.get("n")) or 1) * max(1, len(prompts))
    bounds = (_number(body.get(name)) for name in _BOUNDS)
    bound = next((bound for bound in bounds if bound is not None), output)
    return Estimate(sequences, max(1, sum(each)), sequences * bound)


def _prompts(prompt: object) -> list[object]:
    """The prompts of completions: a text, tokens, or a list of such."""
    if prompt is None:
        return []
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return prompt
    return [prompt]


def _tokens(value: object) -> int:
    """Tokens in a value, however deep: the texts in it by their length, and the numbers in its lists of tokens."""
    characters = tokens = 0
    inside = [value]
    while inside:
        value = inside.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            inside += [part for name, part in value.items() if name not in _NOT_TEXT]
        elif isinstance(value, list) and value and isinstance(value[0], int):
            tokens += len(value)
        elif isinstance(value, list):
            inside += value
    return tokens + -(-characters // CHARACTERS_PER_TOKEN)


def _number(value: object) -> int | None:
    """A count, in every way in which the engine's server takes one: `8`, `8.0`, `"+8"`, `"8_0"`; None if it is none."""
    if isinstance(value, int):
        return value if value >= 0 else None
    if not isinstance(value, str | float) or len(str(value)) > _LONGEST:
        return None
    try:
        number = _COUNT.validate_python(value)
    except ValueError:
        return None
    return number if number >= 0 else None
