"""What is written down of a key."""

import json
from dataclasses import replace
from typing import Any

import pytest

from loraloom.adapters.store.records import decode, encode
from loraloom.server.access.access import Quota, Role
from loraloom.server.access.patterns import EVERYTHING, Patterns
from loraloom.server.access.records import KeyRecord, Terms
from loraloom.server.access.secret import Stored, Token
from loraloom.server.errors import InvalidSettings

STORED = Stored.of(Token.new())
RECORD = KeyRecord(
    number=3,
    name="team",
    action="rotate",
    since="2026-01-01T00:00:00Z",
    terms=Terms(role="publish", adapters=("team/*", "public/*"), publish=("team/*",), sources=("s3://b/",), rpm=5),
    secrets=(STORED, replace(Stored.of(Token.new()), until="2026-01-02T00:00:00Z")),
    by="me",
)


def test_a_record_reads_back_as_written() -> None:
    assert decode(KeyRecord, encode(RECORD)) == RECORD


def test_a_record_shows_neither_secrets_nor_hashes() -> None:
    shown = f"{RECORD!r} {RECORD} {json.dumps(RECORD.public())}"
    assert not any(hidden in shown for each in RECORD.secrets for hidden in (each.salt, each.digest))
    assert RECORD.public()["id"] == RECORD.key == STORED.id


@pytest.mark.parametrize(
    "change",
    [
        {"terms": None},
        {"terms": {"role": "god"}},
        {"terms": {"role": ["infer"]}},
        {"terms": {"adapters": "*"}},
        {"terms": {"adapters": [1]}},
        {"terms": {"adapters": ["a/b/c"]}},
        {"terms": {"sources": [""]}},
        {"terms": {"rpm": 0}},
        {"terms": {"tpm": "many"}},
        {"terms": {"concurrency": True}},
        {"terms": {"expires": "soon"}},
        {"terms": {"expires": 7}},
        {"terms": {"only_on_sundays": True}},
        {"secrets": []},
        {"secrets": None},
        {"secrets": "abc"},
        {"secrets": [{"id": "x"}]},
        {"secrets": [{"id": "x", "salt": "00", "digest": "no hex"}]},
        {"secrets": [{"id": "x", "salt": 7, "digest": "00"}]},
        {"secrets": [{"id": "x", "salt": "00", "digest": "00", "until": "soon"}]},
        {"secrets": [{"id": "x", "salt": "00", "digest": "00", "only_from": "10.0.0.0/8"}]},
        {"name": 7},
    ],
)
def test_what_makes_no_sense_or_may_be_an_unknown_restriction_is_damaged(change: dict[str, Any]) -> None:
    values = json.loads(encode(RECORD)) | change
    with pytest.raises(ValueError, match=".") as caught:
        decode(KeyRecord, json.dumps(values).encode())
    assert STORED.digest not in str(caught.value)


def test_terms_are_what_a_key_may_do() -> None:
    access = RECORD.terms.access("team", "2026")
    assert (access.key, access.role, access.quota, access.sources) == ("team", Role.PUBLISH, Quota(rpm=5), ("s3://b/",))
    assert (access.adapters, access.publish) == (Patterns(("team/*", "public/*")), Patterns(("team/*",)))
    assert not access.background


def test_a_key_publishes_under_the_names_that_it_sees_unless_told_and_only_if_it_may() -> None:
    assert Terms(role="publish", adapters=("a/*",)).access("k", "").publish == Patterns(("a/*",))
    assert Terms(role="infer", adapters=("a/*",), publish=("a/*",)).access("k", "").publish == Patterns(())
    assert Terms(role="admin", adapters=("*",)).access("k", "").publish == EVERYTHING


@pytest.mark.parametrize("terms", [{"role": "root"}, {"adapters": ("a b",)}, {"rpm": -1}, {"publish": ("",)}])
def test_terms_that_mean_nothing_cannot_be_built(terms: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings):
        Terms(**terms)
