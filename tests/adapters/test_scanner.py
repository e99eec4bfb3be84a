import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.adapters.errors import InvalidName
from loraloom.adapters.scanner import MAX_TEXT, Scanner, number_text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back_as_they_were(value: float) -> None:
    assert Scanner(number_text(value)).whole(Scanner.number) == value
    assert "+" not in number_text(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.6, "0.6"),
        (1.0, "1"),
        (-0.3, "-0.3"),
        (-0.0, "0"),
        (1e22, "1e22"),
        (1e-7, "1e-07"),
        (2**53, "9007199254740992"),
    ],
)
def test_numbers_are_written_as_short_as_they_can_be(value: float, text: str) -> None:
    assert number_text(value) == text


def test_each_method_consumes_what_it_reads() -> None:
    scanner = Scanner("-.5e1*org/sql@7")
    assert scanner.weight() == -5.0
    assert scanner.name() == "org/sql"
    assert scanner.accept("@")
    assert scanner.version_number() == 7
    assert scanner.position == len(scanner.text)


def test_what_is_not_there_consumes_nothing() -> None:
    scanner = Scanner("1a+b")
    assert scanner.weight() is None
    assert scanner.version_number() is None
    assert not scanner.accept_plus()
    assert not scanner.at_method()
    assert scanner.position == 0


def test_spaces_around_plus_only() -> None:
    scanner = Scanner("a  +   b")
    scanner.name()
    assert scanner.accept_plus()
    assert scanner.name() == "b"


def test_the_rest_of_the_text_must_be_read() -> None:
    with pytest.raises(InvalidName) as caught:
        Scanner("a:b").whole(Scanner.name)
    assert caught.value.position == 1


def test_long_texts_are_refused_before_they_are_read() -> None:
    Scanner("a" * MAX_TEXT)
    with pytest.raises(InvalidName, match=str(MAX_TEXT)):
        Scanner("a" * (MAX_TEXT + 1))
