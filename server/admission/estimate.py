"""How much a request may take, told from its body before anything of it is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loraloom.server.lax import integer

CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly; it is a reservation, which what is computed replaces."""
OUTPUT = 512
"""Tokens of an answer that says no bound of its own."""

_PROMPTS = ("messages", "input", "instructions", "system", "tools", "documents", "chat_template_kwargs")
"""The fields of chat, responses and messages that become one prompt; `prompt` of completions may be several."""
_BOUNDS = {"/v1/responses": ("max_output_tokens",)}
_USUAL_BOUNDS = ("max_completion_tokens", "max_tokens")
"""What each path goes by, and passes over all others; of two, the larger counts."""
_NOT_TEXT = frozenset(("type", "role", "id", "source", "data", "image_url", "input_audio", "video_url", "audio_url"))


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


def estimate(body: Mapping[str, Any], path: str, output: int = OUTPUT) -> Estimate:
    """What a body of chat, completions, responses (OpenAI) or messages (Anthropic) asks for.

    Args:
        body: any JSON object; what cannot be understood counts as if it were not there: the engine's server will
            refuse it.
        path: which of them it is.
        output: tokens of an answer where the body does not say how many it may have.
    """
    prompts = prompts_of(body)
    each = [_tokens(prompt) for prompt in prompts] + [_tokens([body[name] for name in _PROMPTS if name in body])]
    sequences = max(1, _count(body.get("n")) or 1) * max(1, len(prompts))
    bound = bound_of(body, path)
    return Estimate(sequences, max(1, sum(each)), sequences * (output if bound is None else bound))


def prompts_of(body: Mapping[str, Any]) -> list[object]:
    """The prompts of completions: texts, tokens, or embeddings; none in the body of another path."""
    return [*_prompts(body.get("prompt")), *_prompts(body.get("prompt_embeds"))]


def bound_of(body: Mapping[str, Any], path: str) -> int | None:
    """Tokens that an answer may have; None where the body does not say."""
    said = (_count(body.get(name)) for name in _BOUNDS.get(path, _USUAL_BOUNDS))
    return max((bound for bound in said if bound is not None), default=None)


def _prompts(prompt: object) -> list[object]:
    """A text or tokens, or each of a list of such."""
    if prompt is None:
        return []
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int | float):
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
        elif isinstance(value, list) and value and isinstance(value[0], int | float):
            tokens += len(value)
        elif isinstance(value, list):
            inside += value
    return tokens + -(-characters // CHARACTERS_PER_TOKEN)


def _count(value: object) -> int | None:
    """A count; None if it is none, or less than nothing."""
    number = integer(value)
    return None if number is None or number < 0 else number
