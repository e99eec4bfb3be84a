"""Requests that ask for little, to paths that are open."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.calls import LARGEST, SOUND, Call, extreme, properties, tamed

DOCUMENT = {
    "paths": {
        path: {
            "post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}}
        }
        for path in SOUND
    },
    "components": {
        "schemas": {
            "A": {"anyOf": [{"$ref": "#/components/schemas/B"}, {"type": "null"}], "properties": {"top_k": {}}},
            "B": {"properties": {"max_tokens": {}, "prompt": {}, "structured_outputs": {}}},
        }
    },
}


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"max_tokens": 10**9, "n": 3}, {"max_tokens": LARGEST, "n": 3, "model": "sql"}),
        ({"max_tokens": None}, {"max_tokens": 2, "model": "sql"}),
        ({"max_tokens": "many", "model": 1}, {"max_tokens": "many", "model": "sql"}),
        ([1], [1]),
    ],
)
def test_a_body_is_tamed(body: object, sent: object) -> None:
    assert tamed("/v1/completions", body, "sql") == sent


def test_the_fields_of_a_path() -> None:
    assert properties(DOCUMENT, "/v1/completions") == ["max_tokens", "prompt", "structured_outputs", "top_k"]


@settings(max_examples=20, derandomize=True, database=None)
@given(st.sampled_from(sorted(SOUND)).flatmap(lambda path: extreme(DOCUMENT, path, st.just("sql"))))
def test_extremes_change_sound_bodies(call: Call) -> None:
    assert call.json["model"] == "sql"
    assert set(call.json) <= {"model", *SOUND[call.path], *properties(DOCUMENT, call.path)}
    assert json.dumps(call.json)
