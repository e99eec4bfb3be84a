"""Small changes to texts and bytes: what is almost right reaches deeper than what is drawn from nothing."""

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

Piece = TypeVar("Piece", str, bytes)


@st.composite
def mutated(draw: st.DrawFn, given: st.SearchStrategy[Piece], pieces: Sequence[Piece]) -> Piece:
    """A drawn text or bytes, with up to four parts cut out, doubled, or replaced by one of `pieces`."""
    value = draw(given)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(value)))
        end = min(len(value), start + draw(st.sampled_from((0, 1, 2, 5, 20))))
        between = draw(st.sampled_from((value[:0], value[start:end] * 2, *pieces)))
        value = value[:start] + between + value[end:]
    return value
