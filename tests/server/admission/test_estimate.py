"""What a request may take, told from its body."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loraloom.server.admission.estimate import OUTPUT, Estimate, estimate

TEXT = "four" * 10  # ten tokens
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=12,
)
FIELDS = ("prompt", "messages", "input", "system", "tools", "n", "max_tokens", "max_completion_tokens", "temperature")


def estimated(body: dict[str, Any], output: int = OUTPUT) -> Estimate:
    return estimate(body, RESPONSES if "input" in body else CHAT, output)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": [{"role": "user", "content": TEXT}], "max_tokens": 7}, Estimate(1, 10, 7)),
        (
            {
                "messages": [
                    {"role": "system", "content": TEXT},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": TEXT},
                            {"type": "image_url", "image_url": {"url": "data:" + "A" * 9000}},
                        ],
                    },
                ],
                "max_tokens": 3,
                "max_completion_tokens": 5,
                "n": 4,
            },
            Estimate(4, 20, 20),
        ),
        ({"prompt": TEXT}, Estimate(1, 10, OUTPUT)),
        ({"prompt": [TEXT, TEXT, TEXT], "max_tokens": 5, "n": 2}, Estimate(6, 30, 30)),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, Estimate(1, 3, 5)),
        ({"prompt": [[1, 2, 3], [4, 5]], "max_tokens": 5}, Estimate(2, 5, 10)),
        ({"prompt": TEXT, "n": 3, "use_beam_search": True, "max_tokens": 5}, Estimate(3, 10, 15)),
        ({"input": TEXT, "instructions": TEXT, "max_output_tokens": 9}, Estimate(1, 20, 9)),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}], "max_output_tokens": 9},
            Estimate(1, 10, 9),
        ),
        (
            {"system": [{"type": "text", "text": TEXT}], "messages": [{"role": "user", "content": TEXT}]},
            Estimate(1, 20, OUTPUT),
        ),
        ({}, Estimate(1, 1, OUTPUT)),
        ({"prompt": TEXT, "max_tokens": 0}, Estimate(1, 10, 0)),
        ({"prompt": TEXT, "max_tokens": None, "n": None}, Estimate(1, 10, OUTPUT)),
    ],
    ids=str,
)
def test_of_every_kind_of_request(body: dict[str, Any], expected: Estimate) -> None:
    assert estimated(body) == expected
    assert estimated(body).tokens == expected.prompt + expected.output


@pytest.mark.parametrize("eight", [8, 8.0, "8", " 8 "])
def test_numbers_count_in_every_way_in_which_the_engine_takes_them(eight: object) -> None:
    assert estimated({"prompt": TEXT, "n": eight, "max_tokens": eight}) == Estimate(8, 10, 64)


@pytest.mark.parametrize("wrong", [-1, 0.5, "eight", "٨", "9" * 5000, [8], {"n": 8}, 1e300])
def test_what_is_no_number_counts_as_if_it_were_not_there(wrong: object) -> None:
    assert estimated({"prompt": TEXT, "n": wrong, "max_tokens": wrong}) == Estimate(1, 10, OUTPUT)


def test_an_answer_without_a_bound_is_taken_to_be_as_long_as_one_is_told() -> None:
    assert estimated({"prompt": TEXT}, output=0) == Estimate(1, 10, 0)


def nested(depth: int) -> object:
    value: object = TEXT
    for _ in range(depth):
        value = [value]
    return value


@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON))
@example(body={"prompt": [None, 3, TEXT, {"a": [1]}]})
@example(body={"n": True, "max_tokens": False})
@settings(max_examples=50, deadline=None)
def test_any_json_has_an_estimate(body: dict[str, Any]) -> None:
    found = estimated(body)
    assert found.sequences >= 1
    assert found.prompt >= 1
    assert found.output >= 0


def test_nothing_is_too_deep() -> None:
    assert estimated({"messages": nested(100_000)}).prompt == -(-len(TEXT) // 4)


@pytest.mark.parametrize("many", [1000, 1000.0, "1000", " 1000 ", "+1000", "1_000", "1000.0", "0001000"])
def test_a_count_is_read_in_every_way_in_which_the_engines_server_reads_it(many: object) -> None:
    assert estimated({"prompt": "x", "n": many, "max_tokens": many}).output == 1000 * 1000


@pytest.mark.parametrize("none", ["1e3", "x", "", "0x10", 1.5, float("inf"), [], {}, None, "9" * 101, "\ud800"])
def test_what_is_no_count_counts_as_none(none: object) -> None:
    assert estimated({"prompt": "x", "n": none}) == estimated({"prompt": "x"})


def test_the_largest_bound_counts_as_each_path_passes_over_some() -> None:
    assert estimated({"max_tokens": 1000, "max_completion_tokens": 1}).output == 1000
    assert estimated({"max_tokens": 1000, "max_completion_tokens": 0}).output == 1000
    assert estimate({"max_tokens": 1000, "max_output_tokens": 7}, RESPONSES).output == 7
    assert estimate({"max_output_tokens": 7}, CHAT).output == OUTPUT


def test_tokens_count_also_where_they_are_written_with_a_point() -> None:
    assert estimated({"prompt": [1.0, 2.0, 3.0]}) == estimated({"prompt": [1, 2, 3]}) == Estimate(1, 3, OUTPUT)


def test_what_a_template_is_given_counts() -> None:
    assert estimated({"messages": [], "documents": [{"text": TEXT}], "chat_template_kwargs": {"a": TEXT}}).prompt == 20


def test_embedded_prompts_are_prompts() -> None:
    assert estimated({"prompt_embeds": ["AAAA", "BBBB"], "n": 2}).sequences == 4
