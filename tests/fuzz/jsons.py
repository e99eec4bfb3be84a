"""JSON in every spelling: values, and texts that hold them or almost do."""

import json

from hypothesis import strategies as st

from tests.fuzz.mutations import mutated

STRINGS = ("", "a", "sql", "\0", "\ud800", "\udfff", "\U0001f600", "\u2028", "Infinity", "x" * 5000, "-1", "null", "\n")
INTEGERS = (0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40, 10**400)
FLOATS = (0.0, -0.0, 0.5, 1.0, 1e30, 1e308, 5e-324, 0.1, -1e-7)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(INTEGERS) | st.integers(),
    st.sampled_from(FLOATS) | st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(STRINGS) | st.text(max_size=8),
)


def _nested(depth: int) -> object:
    value: object = []
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(STRINGS) | st.text(), inner, max_size=4)
    ),
    max_leaves=6,
) | st.sampled_from((30, 150, 210)).map(_nested)

SPELLINGS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1E5", b"1.0e+5", b"-0", b"-0.0", b"01", b".5", b"5."),
    *(b"9" * 4299, b"9" * 4301, b"0." + b"1" * 5000, b"1e-99999", b"1e99999999999", b"0e1000000000000"),
    *(b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\0"', b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf", b"'a'"),
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"[" * 1000, b'{"a":' * 300, b"//c\n", b"\x00", b" " * 100),
    *(b"null", b"true", b"True", b"{}", b"[]", b'""', b'"a":1,', b'"model":"sql",', b',"model":1', b"\xc2\xa0"),
)
"""Parts of JSON texts on which parsers differ."""


@st.composite
def spelled(draw: st.DrawFn, given: st.SearchStrategy[object]) -> bytes:
    """A drawn value as JSON, in one of the ways to write it, or almost."""
    indent, plain = draw(st.sampled_from((None, 1))), draw(st.booleans())
    text = json.dumps(draw(given), indent=indent, ensure_ascii=plain)
    return draw(mutated(st.just(text.encode(errors="surrogatepass")), SPELLINGS))
