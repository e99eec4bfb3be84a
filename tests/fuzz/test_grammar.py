"""Whatever text or JSON asks for an adapter, it is one that reads back as itself, or an `InvalidName`."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters import names
from loraloom.adapters.errors import InvalidName
from loraloom.adapters.methods import METHODS as KNOWN_METHODS
from loraloom.adapters.names import Mixture, Selection, parse, selection_from_json
from loraloom.adapters.scanner import MAX_TEXT
from tests.fuzz.cases import fuzzed, watched
from tests.fuzz.jsons import scalars, values
from tests.fuzz.texts import METHODS, NAMES, NUMBERS, VERSIONS, adapters, selections

TOLD = 1000
"""Characters in the longest message: it goes to whoever asked, and into the log."""
READERS: tuple[Callable[[str], object], ...] = (
    names.parse_adapter,
    names.parse_version,
    names.parse_method,
    names.check_name,
    names.check_tag,
)


def checked(selection: Selection) -> None:
    """Everything that a selection promises."""
    text = str(selection)
    assert parse(text) == selection
    assert str(parse(text)) == text
    assert len(text) <= MAX_TEXT
    assert text.isascii()
    assert text.isprintable()
    mixture = selection.mixture
    assert 1 <= len(mixture.terms) <= names.MAX_TERMS
    assert mixture.method.name in KNOWN_METHODS
    assert isinstance(selection.target, Mixture) or mixture.terms[0].weight == 1


def told(error: InvalidName, text: str | None = None) -> None:
    """Everything that an error promises."""
    assert text in (None, error.text)
    assert 0 <= error.position <= len(error.text)
    assert len(str(error)) <= TOLD
    assert str(error).encode()


@fuzzed(0.45)
@given(selections)
@watched
def test_a_text_is_a_selection_or_refused(text: str) -> None:
    try:
        selection = parse(text)
    except InvalidName as error:
        return told(error, text)
    checked(selection)


@fuzzed(0.15)
@given(st.sampled_from(READERS), selections | adapters | st.sampled_from(VERSIONS + METHODS + NAMES))
@watched
def test_a_part_of_a_selection_reads_back_or_is_refused(read: Callable[[str], object], text: str) -> None:
    try:
        value = read(text)
    except InvalidName as error:
        return told(error)
    assert read(str(value)) == value


numbers = scalars | st.sampled_from(NUMBERS) | st.floats()
fields = {
    "name": st.sampled_from(NAMES) | selections | values,
    "version": st.sampled_from(VERSIONS) | st.integers() | values,
    "mix": st.dictionaries(adapters | selections, numbers, max_size=4) | values,
    "method": st.sampled_from(METHODS) | values,
    "alpha": numbers | values,
}
structures = st.one_of(
    st.fixed_dictionaries({"name": fields["name"]}, optional={key: fields[key] for key in ("version", "alpha")}),
    st.fixed_dictionaries({"mix": fields["mix"]}, optional={key: fields[key] for key in ("method", "alpha")}),
    st.fixed_dictionaries({}, optional={**fields, "x" * 3000: values}),
    values,
)


@fuzzed(0.35)
@given(structures)
@watched
def test_json_is_a_selection_or_refused(value: object) -> None:
    try:
        selection = selection_from_json(value)
    except InvalidName as error:
        return told(error)
    checked(selection)


def steps(function: Callable[[], object]) -> int:
    """The lines of the grammar's own modules that a call runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(("names.py", "scanner.py", "methods.py")):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except InvalidName:
        pass
    finally:
        sys.settrace(before)
    return count


@fuzzed(0.05)
@given(selections, st.integers(1, 4))
@watched
def test_the_work_grows_with_the_length(text: str, times: int) -> None:
    longer = "+".join([text] * times)
    assert steps(lambda: parse(longer)) <= 200 * (len(longer) + 1)


@pytest.mark.parametrize("value", [{"name": "a", "x" * 10**6: 1}, {"mix": {"a": 1}, "method": "m" * 10**6}])
def test_what_is_refused_is_not_repeated_at_full_length(value: object) -> None:
    with pytest.raises(InvalidName) as refused:
        selection_from_json(value)
    told(refused.value)
