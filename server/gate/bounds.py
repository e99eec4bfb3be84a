"""How much a request may ask of the engine beside the tokens of its answer: each of these costs everybody else.

Found by reading vLLM (0.32). On a GPU its sampler has room for so many tokens of a list, and a request with more ends
the engine. Words, schemas and grammars are read in the server's event loop, once for each prompt. Repetitions are
looked for after every token, in the engine's scheduler. The log-probabilities of a prompt become one object each. A
beam search keeps a copy of all its log-probabilities for each place at which a beam could have ended. And a prompt that
may be truncated is tokenized whole, however long it is.
"""

from collections.abc import Mapping
from typing import Any

from loraloom.server.admission.estimate import CHARACTERS_PER_TOKEN, Estimate, bound_of, prompts_of
from loraloom.server.errors import InvalidBody
from loraloom.server.gate.body import written
from loraloom.server.lax import flag, integer

LENGTHS = {"logit_bias": 1024, "allowed_token_ids": 1024, "stop_token_ids": 100, "bad_words": 64}
"""Entries of the lists for which the sampler has room; to `stop_token_ids` the model's own are added, and each word is
taken with and without a space before it."""
WORDS = 512
"""Bytes of all `bad_words`, and two for each: no tokenizer makes more tokens than bytes, and there is room for 1024."""
REPETITION = 128
"""Tokens in which `repetition_detection` looks for a pattern: its length times how often it comes."""
BEAM = 1024
"""Tokens of an answer that is searched by beams; what it keeps grows with the square of that."""
PROMPT_LOGPROBS = 200_000
"""Log-probabilities of prompts in one answer."""
EVERY_TOKEN = 100_000
"""About the size of a vocabulary."""
TRUNCATED = 4
"""A prompt that is to be truncated may have so many times the tokens of the context."""
FORM, TOOLS = 2**16, 2**18
"""Bytes of what says the form of an answer, for all prompts together, and of tools."""
FORMS = ("structured_outputs", "response_format", "text", "output_config")
COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"


def check_bounds(body: Mapping[str, Any], path: str, work: Estimate, context: int) -> None:
    """Refuse what would cost others more than its tokens do.

    Args:
        body: as the client sent it.
        path: of chat, completions, responses or messages.
        work: what it asks to compute.
        context: tokens that the engine takes at a time.

    Raises:
        InvalidBody: with the field.
    """
    prompts = max(1, len(prompts_of(body))) if path == COMPLETIONS else 1
    _check_lists(body)
    _check_repetition(body.get("repetition_detection"))
    _check_forms(body, prompts)
    if flag(body.get("use_beam_search")):
        _check_beam(bound_of(body, path), path)
    _check_logprobs(body, work.prompt)
    if work.prompt > TRUNCATED * context * prompts and _is_truncated(body, path):
        raise InvalidBody(
            f"a prompt that is to be truncated may have up to {TRUNCATED * context * CHARACTERS_PER_TOKEN:,} "
            "characters here: cut it before you send it",
            param="truncation" if path == RESPONSES else "truncate_prompt_tokens",
        )


def _is_truncated(body: Mapping[str, Any], path: str) -> bool:
    if path == RESPONSES:
        return bool(body.get("truncation", "disabled") != "disabled")
    return body.get("truncate_prompt_tokens") is not None


def _check_lists(body: Mapping[str, Any]) -> None:
    for field, most in LENGTHS.items():
        if isinstance(value := body.get(field), list | dict) and len(value) > most:
            raise InvalidBody(f"`{field}` has {len(value):,} entries, and may have {most}", param=field)
    words = body.get("bad_words")
    if isinstance(words, list):
        size = sum(len(word.encode("utf-8", "surrogatepass")) + 2 for word in words if isinstance(word, str))
        if size > WORDS:
            raise InvalidBody(
                f"`bad_words` has {size:,} bytes with two for each word, and may have {WORDS}", param="bad_words"
            )


def _check_repetition(wanted: object) -> None:
    if not isinstance(wanted, dict):
        return
    size, times = integer(wanted.get("max_pattern_size")) or 0, integer(wanted.get("min_count")) or 0
    if size * max(2, times) > REPETITION:
        raise InvalidBody(
            f"`repetition_detection` looks for patterns within {REPETITION} tokens here: `max_pattern_size` times "
            "`min_count` may not be more",
            param="repetition_detection",
        )


def _check_forms(body: Mapping[str, Any], prompts: int) -> None:
    for fields, times, most in ((FORMS, prompts, FORM), (("tools", "functions"), 1, TOOLS)):
        for field in fields:
            if (
                isinstance(value := body.get(field), dict | list)
                and (size := len(written({field: value})) * times) > most
            ):
                for_all = "" if times == 1 else f" for all {times} prompts"
                raise InvalidBody(f"`{field}` has {size:,} bytes{for_all}, and may have {most:,}", param=field)


def _check_beam(bound: int | None, path: str) -> None:
    """Completions have 16 tokens where they do not say how many, and a chat as many as fit."""
    if (bound is None and path != COMPLETIONS) or (bound or 0) > BEAM:
        raise InvalidBody(f"a beam search takes `max_tokens` of up to {BEAM} here", param="max_tokens")


def _check_logprobs(body: Mapping[str, Any], prompt: int) -> None:
    """Of each token of the prompts, its own is told besides as many others as are asked for; below 0, all are."""
    field = "prompt_logprobs"
    if body.get(field) is None and flag(body.get("echo")):
        field = "logprobs"
    if (several := integer(body.get(field))) is None:
        return
    wanted = prompt * ((several if several >= 0 else EVERY_TOKEN) + 1)
    if wanted > PROMPT_LOGPROBS:
        raise InvalidBody(
            f"this asks for about {wanted:,} log-probabilities of its prompts, and an answer here has up to "
            f"{PROMPT_LOGPROBS:,}: send fewer or shorter prompts at a time",
            param=field,
        )
