"""What a request may ask of the engine beside the tokens of its answer."""

import json
from typing import Any

import pytest

from loraloom.server.admission.estimate import estimate
from loraloom.server.errors import InvalidBody
from loraloom.server.gate.bounds import (
    BEAM,
    COMPLETIONS,
    FORM,
    LENGTHS,
    REPETITION,
    RESPONSES,
    TOOLS,
    WORDS,
    check_bounds,
)

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
CONTEXT = 1000
PROMPT = {"prompt": "Say hello."}


def check(body: dict[str, Any], path: str = COMPLETIONS) -> None:
    check_bounds(body, path, estimate(body, path), CONTEXT)


def refused(body: dict[str, Any], path: str = COMPLETIONS) -> str | None:
    with pytest.raises(InvalidBody) as refusal:
        check(body, path)
    return refusal.value.param


@pytest.mark.parametrize("field", LENGTHS)
def test_lists_are_no_longer_than_the_sampler_has_room_for(field: str) -> None:
    def of(length: int) -> object:
        return {str(token): 1 for token in range(length)} if field == "logit_bias" else [7] * length

    check({**PROMPT, field: of(LENGTHS[field])})
    assert refused({**PROMPT, field: of(LENGTHS[field] + 1)}) == field


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of vLLM's own imports
def test_the_sampler_has_room_for_what_passes() -> None:
    """Each word is taken twice, of which one may have a token for the space before it."""
    from vllm import envs
    from vllm.v1.worker.gpu.sample import logit_bias

    assert LENGTHS["logit_bias"] <= logit_bias.MAX_NUM_LOGIT_BIAS_TOKENS
    assert LENGTHS["allowed_token_ids"] <= logit_bias.MAX_NUM_ALLOWED_TOKEN_IDS
    assert LENGTHS["stop_token_ids"] < logit_bias.MAX_NUM_STOP_TOKEN_IDS
    assert 2 * LENGTHS["bad_words"] <= envs.VLLM_MAX_NUM_BAD_WORDS
    assert 2 * WORDS <= envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS


@pytest.mark.parametrize("words", [["a" * (WORDS - 1)], ["\u00e9" * (WORDS // 2)], ["\ud800" * 200], ["a" * 9] * 50])
def test_words_have_so_many_bytes_together(words: list[str]) -> None:
    check({**PROMPT, "bad_words": ["a" * (WORDS - 2)]})
    assert refused({**PROMPT, "bad_words": words}) == "bad_words"


@pytest.mark.parametrize(
    "wanted",
    [
        {"max_pattern_size": REPETITION, "min_count": 2},
        {"max_pattern_size": REPETITION // 2 + 1},
        {"max_pattern_size": "1000", "min_count": "1"},
        {"max_pattern_size": 10**9, "min_pattern_size": 1500, "min_count": 2},
        {"max_pattern_size": 2, "min_count": REPETITION},
    ],
)
def test_repetitions_are_looked_for_in_few_tokens(wanted: dict[str, Any]) -> None:
    assert refused({**PROMPT, "repetition_detection": wanted}) == "repetition_detection"


@pytest.mark.parametrize(
    "wanted", [None, "no", {}, {"max_pattern_size": 0}, {"max_pattern_size": REPETITION // 4, "min_count": 4}]
)
def test_a_few_repetitions_may_be_looked_for(wanted: object) -> None:
    check({**PROMPT, "repetition_detection": wanted})


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (COMPLETIONS, {"structured_outputs": {"grammar": "x" * FORM}}),
        (COMPLETIONS, {"structured_outputs": {"choice": ["label"] * (FORM // 8)}}),
        (CHAT, {"response_format": {"json_schema": {"schema": {"enum": ["x" * FORM]}}}}),
        (RESPONSES, {"text": {"format": {"schema": {"enum": ["x" * FORM]}}}}),
        (MESSAGES, {"output_config": {"format": {"schema": {"enum": ["x" * FORM]}}}}),
        (CHAT, {"tools": [{"function": {"parameters": {"enum": ["x" * TOOLS]}}}]}),
    ],
)
def test_forms_are_no_longer_than_can_be_read_soon(path: str, form: dict[str, Any]) -> None:
    assert [refused(form, path)] == list(form)


def test_a_form_is_read_once_for_each_prompt() -> None:
    form = {"structured_outputs": {"grammar": "x" * (FORM // 3)}}
    check({"prompt": ["a", "b"], **form})
    assert refused({"prompt": ["a", "b", "c"], **form}) == "structured_outputs"
    check({"prompt": ["a", "b", "c"], "messages": [], **form}, CHAT)  # which has one
    check({"tools": [{"function": {"description": "x" * FORM}}]}, CHAT)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {"max_tokens": BEAM + 1}),
        (COMPLETIONS, {"max_tokens": str(BEAM + 1)}),
        (CHAT, {}),
        (CHAT, {"prompt": "x"}),
        (CHAT, {"max_output_tokens": 1}),
        (CHAT, {"max_tokens": 1, "max_completion_tokens": BEAM + 1}),
    ],
)
def test_a_beam_search_has_a_bound(path: str, body: dict[str, Any]) -> None:
    assert refused({"use_beam_search": True, "n": 2, **body}, path) == "max_tokens"
    check({**body}, path)


@pytest.mark.parametrize(("path", "body"), [(COMPLETIONS, {}), (CHAT, {"max_tokens": BEAM}), (CHAT, {"max_tokens": 0})])
def test_within_it_beams_are_searched(path: str, body: dict[str, Any]) -> None:
    check({"use_beam_search": "yes", "n": 2, **body}, path)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"prompt_logprobs": 20}, "prompt_logprobs"),
        ({"prompt_logprobs": "-1"}, "prompt_logprobs"),
        ({"prompt_logprobs": 20, "echo": True, "logprobs": 0}, "prompt_logprobs"),
        ({"echo": "true", "logprobs": 20}, "logprobs"),
    ],
)
def test_so_many_log_probabilities_of_prompts_are_told(asked: dict[str, Any], field: str) -> None:
    assert refused({"prompt": [[7] * 10_000], **asked}) == field
    if "-1" not in asked.values():
        check({"prompt": [[7] * 9000], **asked})


@pytest.mark.parametrize("asked", [{"logprobs": 20}, {"echo": True}, {"prompt_logprobs": None}, {"prompt_logprobs": 1}])
def test_those_of_answers_are_not_counted(asked: dict[str, Any]) -> None:
    check({"prompt": [[7] * 99_000], **asked})


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (COMPLETIONS, {"prompt": "x" * 17_000, "truncate_prompt_tokens": 1}, "truncate_prompt_tokens"),
        (COMPLETIONS, {"prompt": ["x" * 17_000] * 2, "truncate_prompt_tokens": -1}, "truncate_prompt_tokens"),
        (
            CHAT,
            {"messages": ["x" * 17_000], "prompt": ["a"] * 9, "truncate_prompt_tokens": 1},
            "truncate_prompt_tokens",
        ),
        (RESPONSES, {"input": "x" * 17_000, "truncation": "auto"}, "truncation"),
        (RESPONSES, {"input": "x" * 17_000, "truncation": None}, "truncation"),
    ],
)
def test_what_is_truncated_is_not_endless(path: str, body: dict[str, Any], field: str) -> None:
    assert refused(body, path) == field
    check(json.loads(json.dumps(body).replace("x" * 17_000, "x" * 15_000)), path)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {"prompt": "x" * 90_000}),  # which the engine's server refuses before it tokenizes
        (RESPONSES, {"input": "x" * 90_000, "truncation": "disabled", "truncate_prompt_tokens": 1}),
        (MESSAGES, {"messages": [], "max_tokens": 1}),
        (CHAT, {"logit_bias": None, "bad_words": "text", "stop_token_ids": 7, "response_format": None, "tools": "no"}),
    ],
)
def test_what_else_is_asked_is_the_engines_to_refuse(path: str, body: dict[str, Any]) -> None:
    check(body, path)
