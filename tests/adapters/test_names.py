import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.methods import EXACT, METHODS, Method
from loraloom.adapters.names import (
    LATEST,
    SHORT,
    Adapter,
    Digest,
    Mixture,
    Selection,
    Tag,
    Term,
    check_name,
    check_tag,
    parse,
    parse_adapter,
    parse_version,
    selection_from_json,
)
from loraloom.adapters.scanner import MAX_TEXT

ALNUM = string.ascii_letters + string.digits
parts = st.builds(str.__add__, st.sampled_from(ALNUM), st.text(ALNUM + "._-", max_size=63))
second_parts = parts.filter(lambda part: part.lower() not in {"versions", "tags"})
names = parts | st.builds("{}/{}".format, parts, second_parts)
tags = parts.filter(lambda part: not part.isdigit()).map(Tag)
digests = st.text("0123456789abcdef", min_size=8, max_size=64).map(Digest)
adapters = st.builds(Adapter, names, st.integers(1, 999_999_999) | tags | digests)
numbers = st.floats(allow_nan=False, allow_infinity=False)
ranks, seeds, densities = st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1), st.floats(0.001, 1)
VALUES = {"rank": ranks, "seed": seeds, "density": densities}


def _methods(name: str) -> st.SearchStrategy[Method]:
    required = {key: VALUES[key] for key, parameter in METHODS[name].items() if parameter.required}
    optional = {key: VALUES[key] for key in METHODS[name] if key not in required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda given: Method(name, tuple(given.items())))


methods = st.sampled_from(sorted(METHODS)).flatmap(_methods)
mixtures = st.builds(Mixture, st.lists(st.builds(Term, numbers, adapters), min_size=1, max_size=10).map(tuple), methods)
selections = st.builds(Selection, adapters | mixtures, st.none() | numbers)


@given(selections)
def test_text_reads_back_as_the_value(selection: Selection) -> None:
    text = str(selection)
    assert parse(text) == selection
    assert str(parse(text)) == text


@given(st.text(max_size=60) | st.text("ab1./@:*+-~()=, e", max_size=40))
def test_any_text_is_a_selection_or_an_invalid_name(text: str) -> None:
    try:
        selection = parse(text)
    except InvalidName as error:
        refused = error
    else:
        assert parse(str(selection)) == selection
        return
    assert 0 <= refused.position <= len(text)
    assert refused.text == text


A, B = Adapter("a"), Adapter("b")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sql", Selection(Adapter("sql"))),
        ("sql@latest", Selection(Adapter("sql"))),
        ("sql@4", Selection(Adapter("sql", 4))),
        ("org/sql@stable", Selection(Adapter("org/sql", Tag("stable")))),
        ("sql@4a", Selection(Adapter("sql", Tag("4a")))),
        ("sql@sha256", Selection(Adapter("sql", Tag("sha256")))),
        ("sql@sha256:0123abcd", Selection(Adapter("sql", Digest("0123abcd")))),
        ("sql~0.8", Selection(Adapter("sql"), 0.8)),
        ("sql~-4", Selection(Adapter("sql"), -4.0)),
        ("0.5", Selection(Adapter("0.5"))),
        ("a..b", Selection(Adapter("a..b"))),
        ("0.5*a", Selection(Mixture((Term(0.5, A),)))),
        ("0.5*0.5", Selection(Mixture((Term(0.5, Adapter("0.5")),)))),
        ("1e-3*a", Selection(Mixture((Term(0.001, A),)))),
        ("1e+5*a", Selection(Mixture((Term(1, Adapter("1e")), Term(5, A))))),
        ("a-1", Selection(Adapter("a-1"))),
        ("a+b", Selection(Mixture((Term(1, A), Term(1, B))))),
        ("a  +  -0.3*b", Selection(Mixture((Term(1, A), Term(-0.3, B))))),
        ("exact:a", Selection(Mixture((Term(1, A),), EXACT))),
        ("lorahub:a+b", Selection(Mixture((Term(1, A), Term(1, B)), Method("lorahub")))),
        (
            "svd(rank=16):0.7*a+-0.3*b",
            Selection(Mixture((Term(0.7, A), Term(-0.3, B)), Method("svd", (("rank", 16),)))),
        ),
        (
            "ties(rank=8,density=0.2):a~1",
            Selection(Mixture((Term(1, A),), Method("ties", (("density", 0.2), ("rank", 8)))), 1),
        ),
    ],
)
def test_what_a_text_means(text: str, value: Selection) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (Selection(Adapter("sql", LATEST)), "sql"),
        (Selection(Mixture((Term(0.6, Adapter("sql", 4)), Term(0.4, Adapter("date", 1))))), "0.6*sql@4+0.4*date@1"),
        (Selection(Mixture((Term(1.0, A), Term(-0.3, B)))), "1*a+-0.3*b"),
        (Selection(Mixture((Term(-0.0, A), Term(1e22, B)))), "0*a+1e22*b"),
        (Selection(Mixture((Term(1, A),), Method("svd", (("rank", 16.0),)))), "svd(rank=16):1*a"),
        (
            Selection(Mixture((Term(1, A),), Method("dare_ties", (("seed", 3), ("density", 1))))),
            "dare_ties(density=1,seed=3):1*a",
        ),
        (Selection(A, 0.80), "a~0.8"),
    ],
)
def test_canonical_text(selection: Selection, text: str) -> None:
    assert str(selection) == text


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        (".", 0),
        ("..", 0),
        ("../a", 0),
        ("a/..", 2),
        ("/etc/passwd", 0),
        ("a/b/c", 3),
        ("a/", 2),
        ("a//b", 2),
        ("-a", 0),
        ("_a", 0),
        (" a", 0),
        ("a ", 1),
        ("a b", 1),
        ("a\n", 1),
        ("a\x00", 1),
        ("\x00", 0),
        ("sql\\..", 3),
        ("ѕql", 0),  # the first letter is Cyrillic
        ("sql\u2025", 3),
        ("s\u202eql", 1),
        ("a/versions", 2),
        ("a/Tags", 2),
        ("a" * 65, 64),
        ("a/" + "b" * 65, 66),
        ("a@", 2),
        ("a@0", 2),
        ("a@04", 2),
        ("a@-1", 2),
        ("a@1234567890", 2),
        ("a@" + "b" * 65, 66),
        ("a@b@c", 3),
        ("a@sha256:0123abc", 16),
        ("a@sha256:0123ABCD", 13),
        ("a@sha256:" + "0" * 65, 74),
        ("a@sha512:01234567", 8),
        ("a+", 2),
        ("+a", 0),
        ("a++b", 2),
        ("a + ", 4),
        ("0.5*", 4),
        ("*a", 0),
        ("0.5 *a", 3),
        ("nan*a", 3),
        ("inf*a", 3),
        ("1e999*a", 0),
        ("a+1e999*b", 2),
        ("--1*a", 0),
        ("a~", 2),
        ("a~b", 2),
        ("a~1~2", 3),
        ("a~1e999", 2),
        ("a~1+b", 3),
        ("exact:", 6),
        ("magic:a", 0),
        ("exact(rank=1):a", 0),
        ("svd:a", 0),
        ("svd(rank=16)", 12),
        ("svd(rank=16)a", 12),
        ("svd(rank=0):a", 0),
        ("svd(rank=1.5):a", 0),
        ("svd(rank=1,rank=2):a", 0),
        ("svd(rank):a", 8),
        ("svd(rank=):a", 9),
        ("svd(rank=1:a", 10),
        ("svd(rank=1,):a", 11),
        ("svd(k=1):a", 0),
        ("ties(density=2):a", 0),
        ("lorahub:svd(rank=1):a", 11),
        ("a" * (MAX_TEXT + 1), MAX_TEXT),
    ],
)
def test_refused_with_the_position(text: str, position: int) -> None:
    with pytest.raises(InvalidName) as caught:
        parse(text)
    assert caught.value.position == position
    assert caught.value.text == text


def test_what_many_ask_for_is_parsed_once() -> None:
    text = "org/sql@stable"
    assert parse(text) is parse(text)
    long = "+".join(f"team/adapter-{number}" for number in range(SHORT // 8))
    assert parse(long) == parse(long)
    assert parse(long) is not parse(long)


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidName) as caught:
        parse("magic:a")
    assert all(name in caught.value.reason for name in METHODS)


def test_a_space_for_a_plus_is_explained() -> None:
    with pytest.raises(InvalidName, match="%2B"):
        parse("0.5*a 0.5*b")


def test_an_adapter_reference_is_no_mixture() -> None:
    assert parse_adapter("org/sql@4") == Adapter("org/sql", 4)
    for text in ("a+b", "0.5*a", "a~1", "exact:a"):
        with pytest.raises(InvalidName):
            parse_adapter(text)


def test_versions() -> None:
    assert [parse_version(text) for text in ("4", "stable", "sha256:01234567")] == [
        4,
        Tag("stable"),
        Digest("01234567"),
    ]


@pytest.mark.parametrize("text", ["sql", "org/sql", "A.b-c_d"])
def test_names_pass(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", ["", "sql@4", "a+b", "a/b/c", "a~1", "a\n"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName):
        check_name(text)


@pytest.mark.parametrize("text", ["", "4", "a/b", "-a", "a b", "sha256:01234567"])
def test_what_is_no_tag(text: str) -> None:
    assert check_tag("v1.0-rc_2") == "v1.0-rc_2"
    with pytest.raises(InvalidName):
        check_tag(text)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Adapter("../a"),
        lambda: Adapter("a", 0),
        lambda: Adapter("a", True),
        lambda: Tag("1"),
        lambda: Digest("XYZ"),
        lambda: Term(float("nan"), A),
        lambda: Mixture(()),
        lambda: Selection(A, float("inf")),
        lambda: Method("svd", (("rank", float("nan")),)),
        lambda: Selection(Mixture(tuple(Term(0.1, A) for _ in range(1000)))),
    ],
)
def test_a_value_that_breaks_a_rule_cannot_be_built(build) -> None:
    with pytest.raises(InvalidName):
        build()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("svd(rank=16):a+b", "svd(rank=16):1*a+1*b"),
        ({"name": "sql"}, "sql"),
        ({"name": "sql", "version": None, "alpha": None}, "sql"),
        ({"name": "sql", "version": "stable"}, "sql@stable"),
        ({"name": "sql", "version": 4, "alpha": 0.8}, "sql@4~0.8"),
        ({"name": "sql", "version": "sha256:01234567"}, "sql@sha256:01234567"),
        ({"mix": {"sql@4": 0.6, "date": 0.4}}, "0.6*sql@4+0.4*date"),
        ({"mix": {"sql@4": 0.6, "date": 0.4}, "method": "exact", "alpha": 0}, "0.6*sql@4+0.4*date~0"),
        ({"mix": {"a": 1, "b": -1}, "method": "svd(rank=16)"}, "svd(rank=16):1*a+-1*b"),
    ],
)
def test_json_says_the_same_as_text(value: object, text: str) -> None:
    assert str(selection_from_json(value)) == text


@pytest.mark.parametrize(
    "value",
    [
        None,
        4,
        [],
        {},
        {"name": 4},
        {"name": "a", "mix": {"a": 1}},
        {"name": "a", "version": True},
        {"name": "a", "version": 1.5},
        {"name": "a", "method": "exact"},
        {"name": "a@4"},
        {"name": "../a"},
        {"name": "a", "alpha": "0.5"},
        {"name": "a", "alpha": True},
        {"mix": []},
        {"mix": {}},
        {"mix": {"a": "1"}},
        {"mix": {"a": True}},
        {"mix": {"a": float("nan")}},
        {"mix": {"a": 10**400}},
        {"mix": {"a+b": 1}},
        {"mix": {"a": 1}, "version": 4},
        {"mix": {"a": 1}, "method": 4},
        {"mix": {"a": 1}, "method": "svd"},
        {"mix": {"a": 1}, "unknown": 1},
        {"mix": {f"a{number}": 0.123456789 for number in range(1000)}},
    ],
)
def test_refused_json(value: object) -> None:
    with pytest.raises(InvalidName):
        selection_from_json(value)


def test_a_key_that_is_not_known_is_not_repeated_at_full_length() -> None:
    with pytest.raises(InvalidName, match="the keys here are name, version, alpha") as refused:
        selection_from_json({"name": "a", "x" * 10**6: 1})
    assert len(str(refused.value)) < 500


def test_of_a_large_value_that_does_not_fit_only_what_is_shown_is_written() -> None:
    written = []

    class Part:
        def __repr__(self) -> str:
            written.append(self)
            return "part"

    with pytest.raises(InvalidName, match="part") as refusal:
        selection_from_json({"name": "a", "mix": [Part() for _ in range(1000)]})
    assert len(written) < 100
    assert len(refusal.value.text) < 500
